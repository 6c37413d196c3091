"""Puts a task together: data set, tokenizer and model source into one Task."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from ..errors import RequestError
from .corpus import KINDS, SPLITS, Corpus, Kind, LabelledTexts, TaggedSentences
from .demo import demo_corpus
from .encode import Encoded, encode_sentences, encode_texts
from .hub import read_hub
from .local import read_folder
from .location import local_folder
from .models import DEMO, check_max_length, find_model, load_tokenizer
from .task import Task
from .tokenization import Coverage

if TYPE_CHECKING:
    from datasets import Dataset


def load_task(
    dataset: str = DEMO,
    *,
    model: str = DEMO,
    kind: Kind | None = None,
    max_length: int = 128,
    pad_to_max_length: bool = False,
    limit: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Task:
    """Reads and tokenises a data set for a model.

    - ``dataset``: ``demo`` (the embedded corpus), a folder (CoNLL columns, or tables with text and label), or a
      hub name, of which ``revision`` picks the version and ``name:config`` the configuration
    - ``model``: ``demo`` (the encoder of the ``demo`` extra), a folder, or a hub name
    - ``kind``: guessed from the data set where it is None
    - ``max_length``: tokens, special ones included, beyond which an example is cut
    - ``limit``: use the first so many training examples (training *texts* are shuffled before, always alike)
    - ``text_column``, ``label_column``: where the usual names and types do not tell

    Raises RequestError for whatever is wrong with the request or the data. Weights are not read yet: see
    ``Task.new_model``.
    """
    if kind is not None and kind not in KINDS:
        raise RequestError(f"{kind!r} is no kind of task; it should be {' or '.join(KINDS)}.")
    if limit is not None and limit < 1:
        raise RequestError(f"The limit is {limit}; it should be 1 training example or more.")
    corpus = _read(dataset, kind, revision, text_column, label_column)
    source = find_model(model, corpus.kind)
    tokenizer = load_tokenizer(source, corpus.kind)
    check_max_length(source, tokenizer, max_length)

    splits = {"train": corpus.train.first(limit), "validation": corpus.validation, "test": corpus.test}
    encoded = {split: _encode(tokenizer, examples, corpus.labels, max_length) for split, examples in splits.items()}
    coverage = sum((encoded[split].coverage for split in SPLITS), Coverage())
    return Task(
        kind=corpus.kind,
        dataset=corpus.name,
        fingerprint=_fingerprint(corpus, splits, encoded, max_length, pad_to_max_length),
        labels=corpus.labels,
        **{split: _dataset(encoded[split]) for split in SPLITS},
        tokenizer=tokenizer,
        coverage=coverage,
        warnings=(
            *corpus.notes,
            *coverage.warnings(corpus.kind, max_length),
            *_never_shown(corpus.labels, splits["train"]),
        ),
        max_length=max_length,
        pad_to_max_length=pad_to_max_length,
        source=source,
    )


def _read(
    dataset: str, kind: Kind | None, revision: str | None, text_column: str | None, label_column: str | None
) -> Corpus:
    folder = None if dataset == DEMO else local_folder(dataset, "train, validation and test")
    if (dataset == DEMO or folder) and revision is not None:
        raise RequestError(f"{dataset} is not from the hub and has no revision {revision!r}; leave the revision out.")
    if dataset == DEMO:
        if kind == "classification" or text_column or label_column:
            raise RequestError("The demo data set is for NER and has no columns to choose; leave these options out.")
        return demo_corpus()
    if folder:
        return read_folder(folder, kind=kind, text_column=text_column, label_column=label_column)
    return read_hub(dataset, kind=kind, revision=revision, text_column=text_column, label_column=label_column)


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: TaggedSentences | LabelledTexts,
    labels: tuple[str, ...],
    max_length: int,
) -> Encoded:
    label_ids = {label: index for index, label in enumerate(labels)}
    if isinstance(examples, TaggedSentences):
        return encode_sentences(tokenizer, examples, label_ids, max_length)
    return encode_texts(tokenizer, examples, label_ids, max_length)


def _dataset(encoded: Encoded) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_dict(dict(encoded.columns))  # in memory: nothing is cached on disk


def _never_shown(labels: tuple[str, ...], train: TaggedSentences | LabelledTexts) -> tuple[str, ...]:
    shown = train.labels()
    missing = [label for label in labels if label not in shown]
    if not missing:
        return ()
    return (
        f"The {len(train):,} training examples in use never show {', '.join(missing)} "
        f"({len(missing)} of {len(labels)} labels), which therefore cannot be learned.",
    )


def _fingerprint(
    corpus: Corpus,
    splits: Mapping[str, TaggedSentences | LabelledTexts],
    encoded: Mapping[str, Encoded],
    max_length: int,
    pad_to_max_length: bool,
) -> str:
    """Token ids stand for the tokenizer: what else it could do with other texts does not matter here."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        digest.update(json.dumps(value, ensure_ascii=False).encode())
        digest.update(b"\n")

    add([corpus.kind, corpus.labels, max_length, pad_to_max_length])
    for split in SPLITS:
        examples = splits[split]
        add([split, len(examples)])
        if isinstance(examples, TaggedSentences):
            add([list(words) for words in examples.words])
            add([list(tags) for tags in examples.tags])
        else:
            add(list(examples.texts))
            add(list(examples.classes))
        add(encoded[split].columns["input_ids"])
    return digest.hexdigest()
