"""A data set before tokenization: tagged sentences or labelled texts in three splits, and their labels."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import RequestError

Kind: TypeAlias = Literal["ner", "classification"]
KINDS: tuple[Kind, ...] = ("ner", "classification")
SPLITS = ("train", "validation", "test")
OUTSIDE = "O"

_IOB = re.compile(r"O|[BI]-.+")
# Fixed, so that the first N training examples are the same in every study.
_SHUFFLE_SEED = 0


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences for NER.

    Attributes:
        words: The words of each sentence.
        tags: `tags[i][j]` is the IOB tag of `words[i][j]`.
    """

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.words)

    def first(self, count: int | None) -> "TaggedSentences":
        """Return the first `count` sentences, all of them for None."""
        return TaggedSentences(self.words[:count], self.tags[:count])

    def labels(self) -> set[str]:
        """Return the tags that occur."""
        return {tag for tags in self.tags for tag in tags}

    def sample(self, count: int | None) -> "TaggedSentences":
        """Return `count` sentences drawn with a fixed seed, in their order; all of them for None."""
        return self._select(_drawn(len(self), count))

    def per_class(self, count: int) -> "TaggedSentences":
        """Return sentences, in their order, of which at least `count` name each class, or all that do.

        The classes are filled from the rarest on, each with the first sentences that name it.
        """
        return self._select(_per_class([{tag[2:] for tag in tags if tag != OUTSIDE} for tags in self.tags], count))

    def _select(self, rows: Sequence[int]) -> "TaggedSentences":
        return TaggedSentences([self.words[i] for i in rows], [self.tags[i] for i in rows])


@dataclass(frozen=True)
class LabelledTexts:
    """Texts for classification.

    Attributes:
        texts: The texts.
        classes: `classes[i]` is the class of `texts[i]`.
    """

    texts: Sequence[str]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int | None) -> "LabelledTexts":
        """Return the first `count` texts, all of them for None."""
        return LabelledTexts(self.texts[:count], self.classes[:count])

    def labels(self) -> set[str]:
        """Return the classes that occur."""
        return set(self.classes)

    def sample(self, count: int | None) -> "LabelledTexts":
        """Return `count` texts drawn with a fixed seed, in their order; all of them for None."""
        return self._select(_drawn(len(self), count))

    def per_class(self, count: int) -> "LabelledTexts":
        """Return the first `count` texts of each class, in their order."""
        return self._select(_per_class([{label} for label in self.classes], count))

    def _select(self, rows: Sequence[int]) -> "LabelledTexts":
        return LabelledTexts([self.texts[i] for i in rows], [self.classes[i] for i in rows])


def _drawn(total: int, count: int | None) -> Sequence[int]:
    if count is None or count >= total:
        return range(total)
    return sorted(random.Random(_SHUFFLE_SEED).sample(range(total), count))


def _per_class(classes: Sequence[set[str]], count: int) -> Sequence[int]:
    """Rows such that `count` of them have each class, where there are as many; `classes` are those of each row."""
    having = {name: [row for row, found in enumerate(classes) if name in found] for name in set().union(*classes)}
    chosen: set[int] = set()
    for name in sorted(having, key=lambda name: (len(having[name]), name)):
        missing = max(0, count - len(chosen.intersection(having[name])))
        chosen.update([row for row in having[name] if row not in chosen][:missing])
    return sorted(chosen)


@dataclass(frozen=True)
class Corpus:
    """A data set in three splits.

    Attributes:
        kind: `ner` or `classification`.
        name: The name of the data set.
        train, validation, test: The splits.
        labels: The labels of all splits together. For NER `O`, then `B-` and `I-` of each class in alphabetical order;
            for classification in the order of the data set if it has one, otherwise in numerical or alphabetical order.
        notes: Sentences that say what was changed while reading.
    """

    kind: Kind
    name: str
    train: TaggedSentences | LabelledTexts
    validation: TaggedSentences | LabelledTexts
    test: TaggedSentences | LabelledTexts
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()


def is_iob(tag: str) -> bool:
    """Return whether `tag` is `O`, `B-CLASS` or `I-CLASS`."""
    return _IOB.fullmatch(tag) is not None


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Convert the IOB1 or IOB2 tags of one sentence to IOB2, in which every entity begins with `B-`.

    Example:
        >>> to_iob2(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"])
        ['B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC']
    """
    converted = []
    before = OUTSIDE
    for tag in tags:
        continues = before[2:] == tag[2:] and before != OUTSIDE
        converted.append("B" + tag[1:] if tag.startswith("I-") and not continues else tag)
        before = tag
    return converted


def tagged_corpus(name: str, splits: Mapping[str, TaggedSentences]) -> Corpus:
    """Build a NER corpus with all tags in IOB2, without empty sentences.

    Raises:
        RequestError: A split has no sentence, or no split has an entity.
    """
    begun = empty = 0
    ready: dict[str, TaggedSentences] = {}
    for split in SPLITS:
        words, tags = [], []
        for sentence, given in zip(splits[split].words, splits[split].tags, strict=True):
            if not sentence:
                empty += 1
                continue
            converted = to_iob2(given)
            begun += sum(old != new for old, new in zip(given, converted, strict=True))
            words.append(sentence)
            tags.append(converted)
        ready[split] = TaggedSentences(words, tags)
        _refuse_empty(name, split, ready[split])
    seen = set().union(*(ready[split].labels() for split in SPLITS)) - {OUTSIDE}
    if not seen:
        raise RequestError(f"{name} has no entity: every tag is O; NER needs B-CLASS and I-CLASS tags too.")
    notes = []
    if begun:
        notes.append(f"{begun:,} entities of {name} began with I-: the tags were read as IOB1 and converted to IOB2.")
    if empty:
        notes.append(f"{empty:,} sentences of {name} have no words and were left out.")
    labels = (OUTSIDE, *sorted(seen, key=lambda tag: (tag[2:], tag[0])))
    return Corpus("ner", name, **ready, labels=labels, notes=tuple(notes))


def labelled_corpus(name: str, splits: Mapping[str, LabelledTexts], order: Sequence[str] | None = None) -> Corpus:
    """Build a classification corpus.

    The training texts are shuffled with a fixed seed: in a file that is sorted by class, the first N texts would all
    have the same class.

    Args:
        name: The name of the data set.
        splits: The texts of each split.
        order: The order of the classes, if the data set defines one.

    Raises:
        RequestError: A split is empty, or there is only one class.
    """
    for split in SPLITS:
        _refuse_empty(name, split, splits[split])
    seen = set().union(*(splits[split].labels() for split in SPLITS))
    if len(seen) < 2:
        raise RequestError(f"{name} has only the class {seen.pop()!r}; classification needs at least two.")
    train = splits["train"]
    rows = list(range(len(train)))
    random.Random(_SHUFFLE_SEED).shuffle(rows)
    shuffled = LabelledTexts([train.texts[i] for i in rows], [train.classes[i] for i in rows])
    labels = tuple(label for label in order if label in seen) if order else _sorted_classes(seen)
    return Corpus("classification", name, shuffled, splits["validation"], splits["test"], labels)


def _refuse_empty(name: str, split: str, examples: TaggedSentences | LabelledTexts) -> None:
    """Raise `RequestError` if a split has no examples."""
    if not len(examples):
        raise RequestError(f"The {split} split of {name} is empty; it needs at least one example.")


def _sorted_classes(classes: set[str]) -> tuple[str, ...]:
    """Classes in numerical order if all are integers, otherwise in alphabetical order."""
    numbers = all(re.fullmatch(r"-?\d+", label) for label in classes)
    return tuple(sorted(classes, key=int) if numbers else sorted(classes))
