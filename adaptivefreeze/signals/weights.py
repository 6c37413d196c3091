"""Norms of the weights and of their changes, and what an update is worth to first order."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..policies.base import Norms
from .base import Measure, norms_of, wide


class WeightNorms(Measure):
    """The norms of the weights as they are."""

    def read(self) -> dict[str, Norms]:
        return norms_of(self.parameters, self.stack)


class WeightChanges(Measure):
    """Keeps a copy of the weights from moment to moment."""

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._before: dict[str, torch.Tensor] = {}
        self.reset()

    def read(self) -> dict[str, Norms]:
        return norms_of(
            {name: wide(p.detach()) - wide(self._before[name]) for name, p in self.parameters.items()}, self.stack
        )

    def reset(self) -> None:
        self._before = {name: p.detach().clone() for name, p in self.parameters.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self._before)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._before |= {name: value.to(self.parameters[name].device) for name, value in tensors.items()}


class Importance(Measure):
    """−Σ Δw·g of an interval's last step: weights and gradients are copied in that step alone."""

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._found: dict[str, float] = {}

    def gradients(self, due: int | None) -> None:
        if due == 1:
            self._held = {
                name: (p.detach().clone(), p.grad.detach().clone())
                for name, p in self.parameters.items()
                if p.grad is not None
            }

    def stepped(self, due: int | None) -> None:
        if due != 1:
            return
        worth = {
            # In place and as one dot product: no third and fourth copy of the weights is made.
            name: torch.dot(before.sub_(self.parameters[name].detach()).flatten(), gradient.flatten())
            for name, (before, gradient) in self._held.items()
        }
        self._held = {}
        self._found = {
            unit.name: sum(float(worth[p.name]) for p in unit.parameters if p.name in worth)
            for unit in self.stack.units
            if any(p.name in worth for p in unit.parameters)
        }

    def read(self) -> dict[str, float]:
        return dict(self._found)

    def reset(self) -> None:
        self._found = {}
