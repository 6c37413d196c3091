"""Measure: the interface of one measured signal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.mask import block_name
from ..model.sharding import full
from ..policies.decision import Norms

Reading = dict[str, float] | dict[str, Norms] | dict[str, list[float]] | dict[str, list[list[float]]]


class Measure(ABC):
    """Measures one signal during a training run.

    `due` is the number of optimizer steps up to the next decision point, the current one included: 1 in the step after
    which the policy decides, 2 in the step before it, None in all others.

    Attributes:
        first_rank_only: Whether all ranks use the reading of rank 0. Otherwise readings are averaged over ranks.

    Args:
        model: The model that is trained.
        stack: Its units.
    """

    first_rank_only: ClassVar[bool] = False

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        self.model = model
        self.stack = stack
        self.parameters = dict(model.named_parameters())

    def on_gradients(self, due: int | None) -> None:  # noqa: B027  # most measures use some of the events
        """Called when `parameter.grad` holds the complete gradients of a step, not clipped. Do not modify them."""

    def on_optimizer_step(self, due: int | None) -> None:  # noqa: B027
        """Called after a step of the optimizer."""

    def on_batch(self, inputs: Mapping[str, Any]) -> None:  # noqa: B027
        """Called before a training forward pass, with its keyword arguments."""

    @abstractmethod
    def read(self) -> Reading:
        """Return the signal measured since the last `reset`."""

    def reset(self) -> None:  # noqa: B027
        """Start a new interval. Called after the policy has decided."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state for a checkpoint, which may fall between two decision points."""
        return {}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:  # noqa: B027
        """Restore what `tensors` returned."""


def norms_of(
    tensors: Mapping[str, torch.Tensor], stack: BlockStack, units: Sequence[str] | None = None
) -> dict[str, Norms]:
    """Return the norms of each unit, over all elements of its tensors as one vector.

    All norms are transferred from the device at once.

    Args:
        tensors: Parameter name -> tensor.
        stack: The units.
        units: Names of the units to return. All by default. A unit without a tensor has norms of 0.
    """
    names = list(tensors)
    values = [tensors[name].detach() for name in names]
    l1 = dict(zip(names, _to_floats(torch._foreach_norm(values, 1)), strict=True))
    l2 = dict(zip(names, _to_floats(torch._foreach_norm(values, 2)), strict=True))
    found = {}
    for unit in stack.units:
        if units is None or unit.name in units:
            own = [p.name for p in unit.parameters if p.name in tensors]
            found[unit.name] = Norms(sum(l1[n] for n in own), sum(l2[n] ** 2 for n in own) ** 0.5)
    return found


def block_names(stack: BlockStack) -> list[str]:
    """Return the names of the blocks, from the bottom to the top."""
    return [block_name(i) for i in range(stack.depth)]


def at_least_float32(value: torch.Tensor) -> torch.Tensor:
    """Convert half precision to single precision, in which sums of many values stay accurate."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _to_floats(scalars: Sequence[torch.Tensor]) -> list[float]:
    return torch.stack([full(s).double() for s in scalars]).tolist() if scalars else []
