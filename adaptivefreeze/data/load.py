"""`load_task`: combine a data set, a tokenizer and the source of a model into a `Task`."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from ..errors import RequestError
from .corpus import KINDS, SPLITS, Corpus, Kind, LabelledTexts, TaggedSentences
from .demo import demo_corpus
from .hub import read_hub
from .local import read_folder
from .location import local_folder
from .models import DEMO, check_max_length, find_model, load_tokenizer
from .task import Task
from .tokenization import Coverage, Encoded, encode_sentences, encode_texts

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
    per_class: int | None = None,
    eval_limit: int | None = None,
    test_limit: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Task:
    """Load a data set and tokenize it for a model. The weights are loaded later, by `Task.new_model`.

    Args:
        dataset: `demo` (the embedded corpus), a folder (CoNLL columns, or tables with text and label), or the name of
            a data set on the hub, where `name:config` selects a configuration.
        model: `demo` (the encoder of the `demo` extra), a folder, or the name of a model on the hub.
        kind: `ner` or `classification`; None infers it from the data set.
        max_length: Maximum length of an example in tokens, including special tokens; longer ones are truncated.
        pad_to_max_length: Pad every example to `max_length` instead of to the longest of its batch.
        limit: Use only the first `limit` training examples. Texts for classification are shuffled before, with a
            fixed seed.
        per_class: Use only the first `per_class` training texts of each class; for NER, the first sentences of which
            that many name each class. Excludes `limit`.
        eval_limit: Use only this many validation examples and this many test examples, drawn with a fixed seed.
        test_limit: Use this many test examples instead.
        revision: The revision of a data set on the hub.
        text_column: The column of the words or texts, if the usual names and types are ambiguous.
        label_column: The column of the tags or classes, likewise.

    Returns:
        The task, with its examples in memory.

    Raises:
        RequestError: The request or the data is invalid.

    Example:
        >>> task = load_task("data/conll2003", model="bert-base-cased", limit=1000)
        >>> trainer = Trainer(
        ...     model=task.new_model(seed=0),
        ...     train_dataset=task.train,
        ...     eval_dataset=task.validation,
        ...     data_collator=task.collator(),
        ...     compute_metrics=task.compute_metrics,
        ... )
    """
    if kind is not None and kind not in KINDS:
        raise RequestError(f"{kind!r} is not a kind of task; it should be {' or '.join(KINDS)}.")
    limits = {
        "training example": limit,
        "training example of each class": per_class,
        "validation example": eval_limit,
        "test example": test_limit,
    }
    for what, value in limits.items():
        if value is not None and value < 1:
            raise RequestError(f"The limit is {value}; it should be at least 1 {what}.")
    if limit is not None and per_class is not None:
        raise RequestError("--limit and --per-class both choose the training examples; pass one of them.")
    corpus = _read(dataset, kind, revision, text_column, label_column)
    source = find_model(model, corpus.kind)
    tokenizer = load_tokenizer(source, corpus.kind)
    check_max_length(source, tokenizer, max_length)

    splits = {
        "train": corpus.train.first(limit) if per_class is None else corpus.train.per_class(per_class),
        "validation": corpus.validation.sample(eval_limit),
        "test": corpus.test.sample(eval_limit if test_limit is None else test_limit),
    }
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
            *_labels_not_trained(corpus.labels, splits["train"]),
        ),
        max_length=max_length,
        pad_to_max_length=pad_to_max_length,
        source=source,
    )


def _read(
    dataset: str, kind: Kind | None, revision: str | None, text_column: str | None, label_column: str | None
) -> Corpus:
    """Read the data set from the package, a folder or the hub."""
    folder = None if dataset == DEMO else local_folder(dataset, "train, validation and test")
    if (dataset == DEMO or folder) and revision is not None:
        raise RequestError(f"{dataset} is not on the hub and has no revision {revision!r}; omit the revision.")
    if dataset == DEMO:
        if kind == "classification" or text_column or label_column:
            raise RequestError("The demo data set is for NER and has no columns to choose; omit these options.")
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
    """Tokenize one split."""
    label_ids = {label: index for index, label in enumerate(labels)}
    if isinstance(examples, TaggedSentences):
        return encode_sentences(tokenizer, examples, label_ids, max_length)
    return encode_texts(tokenizer, examples, label_ids, max_length)


def _dataset(encoded: Encoded) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_dict(dict(encoded.columns))  # in memory, with no cache on disk


def _labels_not_trained(labels: tuple[str, ...], train: TaggedSentences | LabelledTexts) -> tuple[str, ...]:
    """A warning about labels that do not occur in the training examples, if there are any."""
    present = train.labels()
    missing = [label for label in labels if label not in present]
    if not missing:
        return ()
    return (
        f"The {len(train):,} training examples in use do not contain {', '.join(missing)} "
        f"({len(missing)} of {len(labels)} labels), so these cannot be learned.",
    )


def _fingerprint(
    corpus: Corpus,
    splits: Mapping[str, TaggedSentences | LabelledTexts],
    encoded: Mapping[str, Encoded],
    max_length: int,
    pad_to_max_length: bool,
) -> str:
    """Digest of everything that is trained on or scored. The token ids represent the tokenizer."""
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
