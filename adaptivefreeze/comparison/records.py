"""Records of a task and of a model, as stored in each result file and compared before runs share a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.blocks import BlockStack
from ..model.discovery import find_blocks
from ..model.fingerprint import model_fingerprint
from .result import ModelRecord, TaskRecord

if TYPE_CHECKING:
    from ..data import Task


def task_record(task: Task) -> TaskRecord:
    """Return the record of `task` for a result file."""
    return TaskRecord(
        kind=task.kind,
        dataset=task.dataset,
        fingerprint=task.fingerprint,
        train_examples=task.train_examples,
        labels=tuple(task.labels),
        coverage={
            **asdict(task.coverage),
            "subwords_per_word": task.coverage.subwords_per_word,
            "unknown_word_share": task.coverage.unknown_word_share,
        },
        warnings=tuple(task.warnings),
        label_counts={
            "validation": _label_counts(task.validation, task.labels),
            "test": _label_counts(task.test, task.labels),
        },
    )


def _label_counts(split: Any, labels: Sequence[str]) -> dict[str, int]:
    """How often each label occurs in a split, without those that do not."""
    ids = np.concatenate([np.atleast_1d(row) for row in split["labels"]])
    found, counts = np.unique(ids[ids >= 0], return_counts=True)
    return {labels[label]: int(count) for label, count in zip(found, counts, strict=True)}


def starting_model(task: Task) -> tuple[BlockStack, ModelRecord]:
    """Return the units and the record of the model that `task` starts from, which is released again."""
    model = task.new_model(0)
    stack = find_blocks(model)
    record = ModelRecord(
        name=task.model, blocks=stack.depth, parameters=stack.total, fingerprint=model_fingerprint(model)
    )
    return stack, record
