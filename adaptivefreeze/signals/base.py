"""Measure: one thing that is measured during training, and how its state outlives a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.mask import block_name
from ..policies.base import Norms

Reading = dict[str, float] | dict[str, Norms] | dict[str, list[float]] | dict[str, list[list[float]]]


class Measure(ABC):
    """Follows a training run. `due` is the number of optimizer steps to the next moment, the present one included.

    `last_moment`: 1 in the step at whose end the policy is asked.
    `of_first_rank`: what rank 0 reads counts for all, instead of the average over ranks.
    """

    of_first_rank: ClassVar[bool] = False

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        self.model = model
        self.stack = stack
        self.parameters = dict(model.named_parameters())

    def gradients(self, due: int | None) -> None:  # noqa: B027  # most measures look at some events only
        """The step's gradients are complete and raw: `parameter.grad`. They are not to be kept, nor changed."""

    def stepped(self, due: int | None) -> None:  # noqa: B027
        """The optimizer has stepped."""

    def batch(self, inputs: Mapping[str, Any]) -> None:  # noqa: B027
        """A training forward pass begins with these keyword inputs."""

    @abstractmethod
    def read(self) -> Reading:
        """What was measured since the last `reset`."""

    def reset(self) -> None:  # noqa: B027
        """The policy has been asked: a new interval begins."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint needs to go on in mid-interval."""
        return {}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:  # noqa: B027
        """Go on from what `tensors` gave."""


def norms_of(
    tensors: Mapping[str, torch.Tensor], stack: BlockStack, units: Sequence[str] | None = None
) -> dict[str, Norms]:
    """Norms per unit of tensors by parameter name, each norm of all of the unit's values as one vector.

    A unit without any tensor has norms of 0. One transfer from the device for all.
    """
    names = list(tensors)
    values = [tensors[name].detach() for name in names]
    l1 = dict(zip(names, _gather(torch._foreach_norm(values, 1)), strict=True))
    l2 = dict(zip(names, _gather(torch._foreach_norm(values, 2)), strict=True))
    found = {}
    for unit in stack.units:
        if units is None or unit.name in units:
            own = [p.name for p in unit.parameters if p.name in tensors]
            found[unit.name] = Norms(sum(l1[n] for n in own), sum(l2[n] ** 2 for n in own) ** 0.5)
    return found


def block_names(stack: BlockStack) -> list[str]:
    """Names of the blocks, from the bottom."""
    return [block_name(i) for i in range(stack.depth)]


def wide(value: torch.Tensor) -> torch.Tensor:
    """At least single precision: sums of half-precision values lose what they add."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _gather(scalars: Sequence[torch.Tensor]) -> list[float]:
    return torch.stack([s.double() for s in scalars]).tolist() if scalars else []
