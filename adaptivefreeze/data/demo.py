"""The embedded corpus: English sentences for NER, generated from `demo.toml`, identical on every machine.

The four classes (PER, ORG, LOC, PRODUCT) share most of their names, and many names are also common words, so the class
depends on the sentence. No name occurs in two splits, and validation and test contain phrases that the training split
does not. A frozen encoder scores low on it.
"""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from .corpus import OUTSIDE, Corpus, TaggedSentences, tagged_corpus


@dataclass(frozen=True)
class DemoSettings:
    """Default settings of the demo, which takes a few minutes on two cores.

    Args:
        epochs: Passes over the training examples. In all but the first one the cache skips what is frozen.
        batch_size: Examples per step.
        learning_rate: Peak learning rate, one at which full fine-tuning does well.
        max_length: Maximum length of an example in tokens.
        scenarios: What `adaptivefreeze compare` compares: full fine-tuning, one to three frozen blocks, and an
            adaptive policy.
        seeds: The seeds of `adaptivefreeze compare`; with two, intervals would be more than three times as wide.
        cache: Whether `adaptivefreeze compare` uses the prefix cache.
    """

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 7e-4
    max_length: int = 64
    scenarios: tuple[str, ...] = ("nothing", "bottom-up:1", "bottom-up:2", "bottom-up:3", "autofreeze")
    seeds: tuple[int, ...] = (0, 1, 2)
    cache: bool = True


DEMO = DemoSettings()

# The list of names that is specific to each class, and the probability of a shared or an everyday name instead.
_TYPICAL = {"PER": "surname", "ORG": "company", "LOC": "place", "PRODUCT": "device"}
_SHARED, _EVERYDAY = 0.45, 0.2
# The probability that a sentence is built from a clause, that an opening precedes the clause, and of lower case.
_CLAUSE, _OPENING, _LOWER = 0.6, 0.7, 0.08
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class _Split:
    """Number of sentences, the range of each list of names (as fractions), and the share of unseen phrases."""

    sentences: int
    names: tuple[float, float]
    unseen: float


_SPLITS = {
    "train": _Split(480, (0.0, 0.55), 0.0),
    "validation": _Split(200, (0.55, 0.75), 0.5),
    "test": _Split(300, (0.75, 1.0), 0.5),
}


def demo_corpus(seed: int = 0) -> Corpus:
    """Generate 480 training, 200 validation and 300 test sentences of about ten words; equal for equal seeds."""
    source = tomllib.loads(files("adaptivefreeze.data").joinpath("demo.toml").read_text(encoding="utf-8"))
    splits = {}
    for name, split in _SPLITS.items():
        names = {kind: _part(text.split(), split.names, f"{seed} {kind}") for kind, text in source["names"].items()}
        writer = _Writer(source, names, split.unseen, random.Random(f"{seed} {name}"))
        sentences = [writer.sentence() for _ in range(split.sentences)]
        splits[name] = TaggedSentences([words for words, _ in sentences], [tags for _, tags in sentences])
    return tagged_corpus("demo", splits)


def _part(names: Sequence[str], share: tuple[float, float], seed: str) -> list[str]:
    shuffled = list(names)
    random.Random(seed).shuffle(shuffled)
    begin, end = (round(edge * len(names)) for edge in share)
    return shuffled[begin:end]


class _Writer:
    """Generates the sentences of one split."""

    def __init__(
        self, source: Mapping[str, Any], names: Mapping[str, Sequence[str]], unseen: float, rng: random.Random
    ) -> None:
        self._source = source
        self._names = names
        self._unseen = unseen
        self._rng = rng

    def sentence(self) -> tuple[list[str], list[str]]:
        """Return the words of one sentence and their tags."""
        words, tags = [], []
        for token in self._template().split():
            slot = _SLOT.fullmatch(token)
            if slot is None:
                filled, entity = [token], None
            elif slot[1] == "word":
                filled, entity = [self._rng.choice(self._names["everyday"]).lower()], None
            else:
                filled, entity = self._entity(slot[1]).split(), slot[1]
            words += filled
            tags += [OUTSIDE] if entity is None else [f"B-{entity}"] + [f"I-{entity}"] * (len(filled) - 1)
        if self._rng.random() < _LOWER:
            words = [word.lower() for word in words]
        return words, tags

    def _template(self) -> str:
        if self._rng.random() >= _CLAUSE:
            return self._phrase(self._source["sentences"])
        clause = self._phrase(self._source["clauses"][self._rng.choice(tuple(_TYPICAL))])
        opening = self._phrase(self._source["openings"]) if self._rng.random() < _OPENING else ""
        return f"{opening} {clause} ."

    def _phrase(self, phrases: Mapping[str, Sequence[str]]) -> str:
        return self._rng.choice(phrases["unseen" if self._rng.random() < self._unseen else "seen"])

    def _entity(self, entity: str) -> str:
        shape = self._rng.choice(self._source["shapes"][entity])
        return _SLOT.sub(lambda slot: self._filling(slot[1], entity), shape)

    def _filling(self, slot: str, entity: str) -> str:
        if slot == "number":
            return str(self._rng.randint(2, 9))
        if slot == "name":
            roll = self._rng.random()
            slot = "shared" if roll < _SHARED else "everyday" if roll < _SHARED + _EVERYDAY else _TYPICAL[entity]
        return self._rng.choice(self._names[slot])
