"""Records of a task and of a model, as stored in each result file and compared before runs share a folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

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
    )


def starting_model(task: Task) -> tuple[BlockStack, ModelRecord]:
    """Return the units and the record of the model that `task` starts from, which is released again."""
    model = task.new_model(0)
    stack = find_blocks(model)
    record = ModelRecord(
        name=task.model, blocks=stack.depth, parameters=stack.total, fingerprint=model_fingerprint(model)
    )
    return stack, record
