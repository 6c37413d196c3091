"""Units: what a depth is scored on, a seed each or a fold each, in an order that pairs them across depths."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RequestError

if TYPE_CHECKING:
    from ..data import Task

_SHUFFLE_SEED = 0  # fixed, so that every depth, seed and process sees the same folds


@dataclass(frozen=True, order=True)
class Unit:
    """One training of a depth: `seed` decides head, dropout and data order, `fold` what it is validated on."""

    seed: int
    fold: int | None = None

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed} fold {self.fold + 1}"

    @classmethod
    def named(cls, name: str) -> Unit:
        """The unit that is written as `name`.

        >>> Unit.named("seed 3 fold 1")
        Unit(seed=3, fold=0)
        """
        words = name.split()
        return cls(int(words[1]), int(words[3]) - 1 if len(words) > 2 else None)


def units_of(seeds: Sequence[int], folds: int | None) -> tuple[Unit, ...]:
    """Every seed on every fold; without folds, every seed on the task's own validation split."""
    return tuple(Unit(seed, fold) for seed in seeds for fold in (range(folds) if folds else (None,)))


def counted(units: Sequence[Unit]) -> str:
    """`3 seeds`, `5 folds`, `2 seeds × 5 folds`."""
    seeds, folds = len({unit.seed for unit in units}), len({unit.fold for unit in units} - {None})
    parts = [_many(seeds, "seed")] if seeds > 1 or not folds else []
    return " × ".join([*parts, *([_many(folds, "fold")] if folds else [])])


def fold_tasks(task: Task, folds: int) -> tuple[Task, ...]:
    """`folds` tasks, each validated on its own part of the training split and trained on the others.

    Parts are alike in labels: in the classes of texts, for NER in the set of entity classes of a sentence. The test
    split is that of `task`. Raises `RequestError` when there are not 2 folds or not one example for each.
    """
    examples = task.train_examples
    if not 2 <= folds <= examples:
        raise RequestError(
            f"--folds {folds} is not possible: give a number from 2 to {examples}, the training examples."
        )
    from sklearn.model_selection import StratifiedKFold

    split = StratifiedKFold(folds, shuffle=True, random_state=_SHUFFLE_SEED)
    parts = split.split(range(examples), strata(task, folds))
    return tuple(_fold(task, number, folds, kept, held) for number, (kept, held) in enumerate(parts))


def strata(task: Task, folds: int) -> list[str]:
    """A stratum for each training example, each with `folds` members at least, but for one of what is left over."""
    column = task.train["labels"]
    if task.kind == "classification":
        return [task.labels[label] for label in column]
    tags = [[task.labels[label] for label in row if label >= 0] for row in column]
    classes = [[tag[2:] for tag in row if tag.startswith("B-")] for row in tags]
    found = ["+".join(sorted(set(row))) for row in classes]
    # A set of classes too rare to be in every part counts as its most frequent class; that being rare too, as none.
    overall = Counter(name for row in classes for name in row)
    sizes = Counter(found)
    for row, names in enumerate(classes):
        if sizes[found[row]] < folds:
            found[row] = max(sorted(set(names)), key=overall.__getitem__, default="")
    sizes = Counter(found)
    return [name if sizes[name] >= folds else "" for name in found]


def _fold(task: Task, number: int, folds: int, kept: Sequence[int], held: Sequence[int]) -> Task:
    name = f"fold {number + 1} of {folds}"
    return dataclasses.replace(
        task,
        dataset=f"{task.dataset}, {name}",
        fingerprint=hashlib.sha256(f"{task.fingerprint} {name}".encode()).hexdigest(),
        train=task.train.select(list(kept)),
        validation=task.train.select(list(held)),
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
