"""Records of a task and of a model, as stored in each result file and compared before runs share a folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from torch import nn

from ..model.blocks import BlockStack
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
    )


def model_record(task: Task, model: nn.Module, stack: BlockStack) -> ModelRecord:
    """Return the record of `model` for a result file.

    Args:
        task: The task that `model` was created for.
        model: The model before training, so that its fingerprint is that of the starting weights.
        stack: The units of `model`.
    """
    return ModelRecord(
        name=task.model, blocks=stack.depth, parameters=stack.total, fingerprint=model_fingerprint(model)
    )
