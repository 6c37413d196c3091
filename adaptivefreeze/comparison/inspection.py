"""`inspect_model` and `inspect_task`: the units of a model, and the predicted cost of freezing to each depth."""

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
"""Number of parameters up to which a model is built in memory; a larger one stays on the meta device."""


@dataclass(frozen=True)
class Depth:
    """The predicted effect of freezing `k` blocks from either end.

    Attributes:
        k: The number of frozen blocks. Bottom-up freezes the embeddings too, top-down leaves them trainable.
        bottom_up_ratio: Predicted step time as a multiple of that of full fine-tuning.
        bottom_up_trainable: Number of trainable parameters.
        top_down_ratio: As `bottom_up_ratio`.
        top_down_trainable: As `bottom_up_trainable`.
    """

    k: int
    bottom_up_ratio: float
    bottom_up_trainable: int
    top_down_ratio: float
    top_down_trainable: int


@dataclass(frozen=True)
class Inspection:
    """The units of a model and the predicted effect of each depth.

    Attributes:
        name: The name of the model.
        stack: Its units.
        shape: The training step that the predictions are for.
        depths: One entry per depth, from 0.
        task: The task, if the model was inspected for one.
    """

    name: str
    stack: BlockStack
    shape: StepShape
    depths: tuple[Depth, ...]
    task: Task | None = None


def inspect_task(task: Task, settings: StudySettings | None = None) -> Inspection:
    """Inspect the model of a task, for steps of the shape that training has.

    Args:
        task: The task.
        settings: The batch size and sampling; the defaults if None.
    """
    return _inspect(task.model, find_blocks(task.new_model(0)), step_shape(task, settings or StudySettings()), task)


def inspect_model(name: str, *, tower: str | None = None, batch_size: int = 16, tokens: int = 128) -> Inspection:
    """Inspect a model without a head, reading only its configuration.

    Args:
        name: A hub name, a folder or `demo`.
        tower: Which tower, for a model with several.
        batch_size: Examples per step.
        tokens: Tokens per example.

    Raises:
        RequestError: `name` is not a transformers model, or it has several towers and `tower` is None.
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
            model = build(config)
    except Exception as error:  # transformers raises many types
        hint = "pass a folder written by save_pretrained" if folder else "check the name, or try again online"
        raise RequestError(f"{name} is not a transformers model that can be built: {hint}.") from error
    if sum(p.numel() for p in model.parameters()) > _BUILT_AT_MOST:
        return model
    return build(config)
