"""Cross-validation: tasks that are validated on parts of the training split."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

from ..errors import RequestError
from .task import Task

_SHUFFLE_SEED = 0  # fixed, so that every process makes the same folds


def fold_tasks(task: Task, folds: int) -> tuple[Task, ...]:
    """Return `folds` tasks, each validated on its own part of the training split and trained on the others.

    Parts are stratified: by the classes of texts, for NER by the set of entity classes of a sentence. The test split
    is that of `task`.

    Raises:
        RequestError: If there are fewer than 2 folds, or fewer training examples than folds.
    """
    examples = task.train_examples
    if not 2 <= folds <= examples:
        raise RequestError(
            f"--folds {folds} is not possible: give a number from 2 to {examples}, the training examples."
        )
    from sklearn.model_selection import StratifiedKFold

    split = StratifiedKFold(folds, shuffle=True, random_state=_SHUFFLE_SEED)
    parts = split.split(range(examples), strata(task, folds))
    names = [f"fold {number + 1} of {folds}" for number in range(folds)]
    return tuple(
        replace(
            task,
            dataset=f"{task.dataset}, {name}",
            fingerprint=hashlib.sha256(f"{task.fingerprint} {name}".encode()).hexdigest(),
            train=task.train.select(list(kept)),
            validation=task.train.select(list(held)),
        )
        for name, (kept, held) in zip(names, parts, strict=True)
    )


def strata(task: Task, folds: int) -> list[str]:
    """Return a stratum for each training example, each with at least `folds` members except the one of the rest."""
    column = task.train["labels"]
    if task.kind == "classification":
        return [task.labels[label] for label in column]
    tags = [[task.labels[label] for label in row if label >= 0] for row in column]
    classes = [[tag[2:] for tag in row if tag.startswith("B-")] for row in tags]
    found = ["+".join(sorted(set(row))) for row in classes]
    # A set of classes too rare for every part counts as its most frequent class, and if that is too rare, as none.
    overall = Counter(name for row in classes for name in row)
    sizes = Counter(found)
    for row, names in enumerate(classes):
        if sizes[found[row]] < folds:
            found[row] = max(sorted(set(names)), key=overall.__getitem__, default="")
    sizes = Counter(found)
    return [name if sizes[name] >= folds else "" for name in found]
