"""inspect_model, inspect_task: a model's units, and what freezing to each depth would cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.cost import StepShape, step_ratio
from ..model.discovery import find_blocks
from ..policies import BottomUp, TopDown
from .prediction import step_shape
from .settings import StudySettings

if TYPE_CHECKING:
    from torch import nn

    from ..data import Task

_BUILT_AT_MOST = 10**9
"""Parameters up to which a model is really built; a larger one is laid out without memory for its weights."""


@dataclass(frozen=True)
class Depth:
    """Freezing `k` blocks from either end: predicted step time / full step time, and parameters that still train.

    Bottom-up freezes the embeddings too, top-down leaves them trainable.
    """

    k: int
    bottom_up_ratio: float
    bottom_up_trainable: int
    top_down_ratio: float
    top_down_trainable: int


@dataclass(frozen=True)
class Inspection:
    """What was found of the model `name`; `shape` is the training step that the depths were predicted for."""

    name: str
    stack: BlockStack
    shape: StepShape
    depths: tuple[Depth, ...]
    task: Task | None = None


def inspect_task(task: Task, settings: StudySettings | None = None) -> Inspection:
    """The model as it would be trained on `task`, with steps of the task's own shape."""
    return _inspect(task.model, find_blocks(task.new_model(0)), step_shape(task, settings or StudySettings()), task)


def inspect_model(name: str, *, tower: str | None = None, batch_size: int = 16, tokens: int = 128) -> Inspection:
    """The bare model of a hub name, a folder or `demo`, of which only the configuration is read.

    Raises `RequestError` for what is no transformers model and for several towers of which none is named.
    """
    return _inspect(name, find_blocks(_bare_model(name), tower), StepShape(examples=batch_size, tokens=tokens), None)


def _inspect(name: str, stack: BlockStack, shape: StepShape, task: Task | None) -> Inspection:
    depths = []
    for k in range(stack.depth + 1):
        bottom_up, top_down = BottomUp(k).initial_mask(stack), TopDown(k).initial_mask(stack)
        depths.append(
            Depth(
                k,
                step_ratio(stack, bottom_up, shape),
                stack.trainable_parameters(bottom_up),
                step_ratio(stack, top_down, shape),
                stack.trainable_parameters(top_down),
            )
        )
    return Inspection(name, stack, shape, tuple(depths), task)


def _bare_model(name: str) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    from ..data.location import local_folder
    from ..data.models import DEMO, demo_model

    folder = demo_model() if name == DEMO else local_folder(name, "a transformers model")
    build: Callable[[Any], nn.Module] = AutoModel.from_config
    try:
        config = AutoConfig.from_pretrained(str(folder) if folder else name)
        with torch.device("meta"):
            laid_out = build(config)
    except Exception as error:  # transformers raises many kinds for what is no model
        hint = "give a folder written by save_pretrained" if folder else "check the name, or connect and try again"
        raise RequestError(f"{name} is no transformers model that can be built here: {hint}.") from error
    if sum(p.numel() for p in laid_out.parameters()) > _BUILT_AT_MOST:
        return laid_out
    return build(config)
