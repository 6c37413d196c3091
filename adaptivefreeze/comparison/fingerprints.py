"""What makes two runs comparable: the records of task and model, with fingerprints of their content."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..model.blocks import BlockStack
from .result import ModelRecord, TaskRecord

if TYPE_CHECKING:
    from ..data import Task

_SAMPLED = 64


def task_record(task: Task) -> TaskRecord:
    """`task` as a result file names it."""
    return TaskRecord(
        kind=task.kind,
        dataset=task.dataset,
        fingerprint=task.fingerprint,
        train_examples=task.train_examples,
        labels=tuple(task.labels),
        coverage={
            **asdict(task.coverage),
            "pieces_per_word": task.coverage.pieces_per_word,
            "unknown_word_share": task.coverage.unknown_word_share,
        },
        warnings=tuple(task.warnings),
    )


def model_record(task: Task, model: nn.Module, stack: BlockStack) -> ModelRecord:
    """`model`, fresh from `task`, as a result file names it."""
    return ModelRecord(name=task.model, blocks=stack.depth, parameters=stack.total, fingerprint=fingerprint(model))


def fingerprint(model: nn.Module) -> str:
    """A digest of the parameters' names, shapes and some values of each: equal for equal starting weights.

    64 values a tensor, evenly spread, tell two checkpoints apart and cost nothing on a model of any size.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten()
        count = min(_SAMPLED, values.numel())
        # In whole numbers: float32 cannot tell the last of 2²⁴ values and more from the one after it.
        spread = torch.arange(count) * (values.numel() - 1) // max(count - 1, 1)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(values[spread.to(values.device)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
