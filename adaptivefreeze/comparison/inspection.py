"""`inspect_model` and `inspect_task`: the units of a model, and the predicted cost of freezing to each depth."""

from __future__ import annotations

import dataclasses
import logging
import time
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
from .preflight import Forecast, preflight
from .settings import StudySettings

if TYPE_CHECKING:
    from torch import nn

    from ..data import Task

logger = logging.getLogger(__name__)

_TIMED_STEPS = 3
_LONGEST_TIMING = 10.0  # seconds after which no further step is timed
_BUILT_AT_MOST = 10**9
"""Number of parameters up to which a model is built in memory; a larger one stays on the meta device."""


@dataclass(frozen=True)
class Depth:
    """The predicted effect of freezing `k` blocks from either end.

    Attributes:
        k: The number of frozen blocks. Bottom-up freezes the embeddings too, top-down leaves them trainable.
        bottom_up_ratio: Predicted step time as a multiple of that of full fine-tuning.
        bottom_up_cached_ratio: The same for a step in which the cache skips the frozen prefix.
        bottom_up_trainable: Number of trainable parameters.
        top_down_ratio: As `bottom_up_ratio`.
        top_down_trainable: As `bottom_up_trainable`.
    """

    k: int
    bottom_up_ratio: float
    bottom_up_cached_ratio: float
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
        full_step_seconds: Measured time of a step of full fine-tuning on this machine, None if it was not measured.
        task: The task, if the model was inspected for one.
        settings: How the runs of `forecasts` are trained.
        forecasts: What whole runs would cost on this machine, if that was measured.
    """

    name: str
    stack: BlockStack
    shape: StepShape
    depths: tuple[Depth, ...]
    full_step_seconds: float | None = None
    task: Task | None = None
    settings: StudySettings | None = None
    forecasts: tuple[Forecast, ...] = ()


def inspect_task(task: Task, settings: StudySettings | None = None, *, measure: bool = False) -> Inspection:
    """Inspect the model of a task, for steps of the shape that training has.

    Args:
        task: The task.
        settings: How runs would be trained; the defaults if None.
        measure: Also train for a few steps, and predict what whole runs would cost (`preflight`).
    """
    settings = settings or StudySettings()
    model, shape = task.new_model(0), step_shape(task, settings)
    found = _inspect(task.model, find_blocks(model), shape, task, step_seconds(model, shape))
    forecasts = preflight(task, settings) if measure else ()
    return dataclasses.replace(found, settings=settings, forecasts=forecasts)


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
    model, shape = _bare_model(name), StepShape(examples=batch_size, tokens=tokens)
    return _inspect(name, find_blocks(model, tower), shape, None, step_seconds(model, shape))


def step_seconds(model: nn.Module, shape: StepShape) -> float | None:
    """Measure a step of full fine-tuning with AdamW, on random tokens and the device of the model, in seconds.

    The first step, which starts libraries up, is not counted, unless it took long.

    Args:
        model: The model, whose weights change.
        shape: The shape of the step.

    Returns:
        The time of the faster step, or None if the model does not accept tokens alone, or is on the meta device.
    """
    if next(model.parameters()).is_meta:
        return None
    vocabulary: Any = getattr(getattr(model, "config", None), "vocab_size", None)
    if not isinstance(vocabulary, int):
        return None
    ids = torch.randint(0, vocabulary, (shape.examples, shape.tokens), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.train()
    times: list[float] = []
    while len(times) < _TIMED_STEPS and sum(times) < _LONGEST_TIMING:
        began = time.perf_counter()
        try:
            output: Any = model(input_ids=ids, attention_mask=torch.ones_like(ids))
            output[0].float().mean().backward()
            optimizer.step()
        except Exception as error:  # a model may need more than tokens
            logger.info("The time of a step was not measured (%s: %s).", type(error).__name__, error)
            return None
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return min(times)


def _inspect(name: str, stack: BlockStack, shape: StepShape, task: Task | None, seconds: float | None) -> Inspection:
    depths = []
    for k in range(stack.depth + 1):
        bottom_up, top_down = BottomUp(k).initial_mask(stack), TopDown(k).initial_mask(stack)
        depths.append(
            Depth(
                k,
                step_ratio(stack, bottom_up, shape),
                step_ratio(stack, bottom_up, shape, cached=True),
                stack.trainable_parameters(bottom_up),
                step_ratio(stack, top_down, shape),
                stack.trainable_parameters(top_down),
            )
        )
    return Inspection(name, stack, shape, tuple(depths), seconds, task)


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
