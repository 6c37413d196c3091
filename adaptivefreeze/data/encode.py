"""Turns words or texts into token ids: labels on the first piece of each word, what is cut off counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from .corpus import LabelledTexts, TaggedSentences
from .tokenization import Coverage

IGNORED = -100  # what torch's cross-entropy skips


@dataclass(frozen=True)
class Encoded:
    """One split as columns: ``input_ids``, ``attention_mask``, maybe ``token_type_ids``, and ``labels``."""

    columns: Mapping[str, list[Any]]
    coverage: Coverage


def encode_sentences(
    tokenizer: PreTrainedTokenizerBase, sentences: TaggedSentences, label_ids: Mapping[str, int], max_length: int
) -> Encoded:
    """``labels`` is one id a token: the tag's at the first piece of each word, -100 everywhere else."""
    batch = tokenizer(
        [list(words) for words in sentences.words],
        is_split_into_words=True,
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
    )
    columns = _columns(batch)
    coverage = Coverage()
    for example, rows in _rows_of_examples(batch):
        words_of_rows = [batch.word_ids(row) for row in rows]
        ids = [label_ids[tag] for tag in sentences.tags[example]]
        before, labels = None, []
        for word in words_of_rows[0]:
            labels.append(IGNORED if word is None or word == before else ids[word])
            before = word
        _append(columns, batch, rows[0], labels)
        coverage += _count(tokenizer, batch, rows, words_of_rows, len(ids))
    return Encoded(columns, coverage)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: LabelledTexts, label_ids: Mapping[str, int], max_length: int
) -> Encoded:
    """``labels`` is one id a text."""
    batch = tokenizer(
        list(texts.texts),
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns = _columns(batch)
    coverage = Coverage()
    for example, rows in _rows_of_examples(batch):
        word_at, words = _words_by_character(texts.texts[example])
        # A piece belongs to the word of its last character: some tokenizers let the space before a word in.
        words_of_rows = [
            [word_at[end - 1] if end > begin else None for begin, end in batch["offset_mapping"][row]] for row in rows
        ]
        _append(columns, batch, rows[0], label_ids[texts.classes[example]])
        coverage += _count(tokenizer, batch, rows, words_of_rows, words)
    return Encoded(columns, coverage)


def _columns(batch: Any) -> dict[str, list[Any]]:
    names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in batch]
    return {name: [] for name in (*names, "labels")}


def _append(columns: dict[str, list[Any]], batch: Any, row: int, labels: Any) -> None:
    for name, column in columns.items():
        column.append(labels if name == "labels" else batch[name][row])


def _rows_of_examples(batch: Any) -> Iterator[tuple[int, list[int]]]:
    """Each example with its rows: the one that is kept, then those with what did not fit."""
    owners = batch["overflow_to_sample_mapping"]
    for example, rows in groupby(range(len(owners)), key=owners.__getitem__):
        yield example, list(rows)


def _words_by_character(text: str) -> tuple[list[int | None], int]:
    """For each character the index of its word (None for white space), and how many words there are."""
    word_at: list[int | None] = []
    words = 0
    inside = False
    for character in text:
        starts = not character.isspace() and not inside
        words += starts
        inside = not character.isspace()
        word_at.append(words - 1 if inside else None)
    return word_at, words


def _count(
    tokenizer: PreTrainedTokenizerBase,
    batch: Any,
    rows: Sequence[int],
    words_of_rows: Sequence[Sequence[int | None]],
    words: int,
) -> Coverage:
    unknown = tokenizer.unk_token_id
    read: set[int] = set()
    unread: set[int] = set()
    pieces = 0
    kept: set[int] = set()
    for row, words_of_row in zip(rows, words_of_rows, strict=True):
        for token, word in zip(batch["input_ids"][row], words_of_row, strict=True):
            if word is None:
                continue
            pieces += 1
            (unread if token == unknown else read).add(word)
        if row == rows[0]:
            kept = read | unread
    return Coverage(
        examples=1,
        cut_examples=int(len(rows) > 1),
        words=words,
        cut_words=len((read | unread) - kept),
        pieces=pieces,
        unknown_words=len(unread) + words - len(read | unread),
    )
