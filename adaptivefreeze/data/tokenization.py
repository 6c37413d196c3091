"""Tokenization of sentences and texts, and statistics of how well a tokenizer covers a data set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from .corpus import Kind, LabelledTexts, TaggedSentences

IGNORED = -100  # the label that torch's cross-entropy skips

# Above these limits a result says more about the tokenizer than about freezing. BERT's English vocabulary leaves
# less than 0.1 % of English words unknown and splits a word into 1.2 subwords on average.
_UNKNOWN_SHARE = 0.10
_SUBWORDS_PER_WORD = 4.0
_TRUNCATED_SHARE = 0.01


@dataclass(frozen=True)
class Coverage:
    """Counts over the tokenized examples of a task; the sum of two has the counts of both.

    A word is a word of the data set for NER, and a string between white space for classification.

    Attributes:
        examples: Number of examples.
        truncated_examples: Examples that lost at least one subword to truncation.
        words: Number of words, including truncated ones.
        truncated_words: Words entirely beyond the maximum length. They are neither trained on nor scored.
        subwords: Number of subwords, including truncated ones, without special tokens.
        unknown_words: Words that contain the unknown token, or for which the tokenizer produces no token.
    """

    examples: int = 0
    truncated_examples: int = 0
    words: int = 0
    truncated_words: int = 0
    subwords: int = 0
    unknown_words: int = 0

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(**{name: count + getattr(other, name) for name, count in vars(self).items()})

    @property
    def subwords_per_word(self) -> float:
        """Mean number of subwords in a word."""
        return self.subwords / max(self.words, 1)

    @property
    def unknown_word_share(self) -> float:
        """Share of the words that are unknown."""
        return self.unknown_words / max(self.words, 1)

    @property
    def truncated_word_share(self) -> float:
        """Share of the words that are truncated."""
        return self.truncated_words / max(self.words, 1)

    @property
    def truncated_example_share(self) -> float:
        """Share of the examples that are truncated."""
        return self.truncated_examples / max(self.examples, 1)

    def warnings(self, kind: Kind, max_length: int) -> tuple[str, ...]:
        """Return a sentence for each problem that makes results hard to interpret.

        Args:
            kind: The kind of task.
            max_length: The maximum length that the examples were truncated to, in tokens.
        """
        found = []
        if self.unknown_word_share > _UNKNOWN_SHARE:
            found.append(
                f"The tokenizer does not cover this language: {self.unknown_word_share:.0%} of the words contain the "
                f"unknown token ({self.subwords_per_word:.1f} subwords per word). Choose a model whose vocabulary "
                "covers the language: with this one the results say little about freezing."
            )
        # In many scripts white space does not separate words, so texts are not judged by it.
        elif kind == "ner" and self.subwords_per_word > _SUBWORDS_PER_WORD:
            found.append(
                f"The tokenizer splits words of this language into {self.subwords_per_word:.1f} subwords on average; "
                "choose a model whose vocabulary covers the language."
            )
        if self.truncated_word_share > _TRUNCATED_SHARE:
            found.append(
                f"{self.truncated_word_share:.1%} of the words ({self.truncated_words:,}) are beyond the maximum "
                f"length of {max_length} tokens and are neither trained on nor scored; increase the maximum length."
            )
        return tuple(found)


@dataclass(frozen=True)
class Encoded:
    """One tokenized split.

    Attributes:
        columns: `input_ids`, `attention_mask`, `token_type_ids` if the tokenizer has them, and `labels`.
        coverage: The counts of the split.
    """

    columns: Mapping[str, list[Any]]
    coverage: Coverage


def encode_sentences(
    tokenizer: PreTrainedTokenizerBase, sentences: TaggedSentences, label_ids: Mapping[str, int], max_length: int
) -> Encoded:
    """Tokenize sentences; `labels` has the tag's id at the first subword of each word, and -100 elsewhere."""
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
    """Tokenize texts; `labels` has one id per text."""
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
        # A subword belongs to the word of its last character: some tokenizers include the space before a word.
        words_of_rows = [
            [word_at[end - 1] if end > begin else None for begin, end in batch["offset_mapping"][row]] for row in rows
        ]
        _append(columns, batch, rows[0], label_ids[texts.classes[example]])
        coverage += _count(tokenizer, batch, rows, words_of_rows, words)
    return Encoded(columns, coverage)


def _columns(batch: Any) -> dict[str, list[Any]]:
    """Empty columns for what the tokenizer returns, and for the labels."""
    names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in batch]
    return {name: [] for name in (*names, "labels")}


def _append(columns: dict[str, list[Any]], batch: Any, row: int, labels: Any) -> None:
    """Append one row of the batch and its labels to the columns."""
    for name, column in columns.items():
        column.append(labels if name == "labels" else batch[name][row])


def _rows_of_examples(batch: Any) -> Iterator[tuple[int, list[int]]]:
    """Each example with its rows: first the row that is kept, then the rows of the truncated remainder."""
    owners = batch["overflow_to_sample_mapping"]
    for example, rows in groupby(range(len(owners)), key=owners.__getitem__):
        yield example, list(rows)


def _words_by_character(text: str) -> tuple[list[int | None], int]:
    """The index of the word at each character (None for white space), and the number of words."""
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
    """The counts of one example of `words` words, given the word of each token of its rows."""
    unknown = tokenizer.unk_token_id
    known_words: set[int] = set()
    unknown_words: set[int] = set()
    kept: set[int] = set()
    subwords = 0
    for row, words_of_row in zip(rows, words_of_rows, strict=True):
        for token, word in zip(batch["input_ids"][row], words_of_row, strict=True):
            if word is None:
                continue
            subwords += 1
            (unknown_words if token == unknown else known_words).add(word)
        if row == rows[0]:
            kept = known_words | unknown_words
    seen = known_words | unknown_words
    return Coverage(
        examples=1,
        truncated_examples=int(len(rows) > 1),
        words=words,
        truncated_words=len(seen - kept),
        subwords=subwords,
        unknown_words=len(unknown_words) + words - len(seen),
    )
