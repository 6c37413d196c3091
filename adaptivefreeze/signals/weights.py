"""Norms of the weights and of their changes, and the first-order effect of an update on the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.sharding import full, placed_like
from ..policies.decision import Norms
from .base import Measure, at_least_float32, norms_of


class WeightNorms(Measure):
    """Norms of the current weights."""

    def read(self) -> dict[str, Norms]:
        return norms_of(self.parameters, self.stack)


class WeightChanges(Measure):
    """Norms of the change since the last decision point, at which the weights are copied."""

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._before: dict[str, torch.Tensor] = {}
        self.reset()

    def read(self) -> dict[str, Norms]:
        return norms_of(
            {
                name: at_least_float32(p.detach()) - at_least_float32(self._before[name])
                for name, p in self.parameters.items()
            },
            self.stack,
        )

    def reset(self) -> None:
        self._before = {name: p.detach().clone() for name, p in self.parameters.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: full(value) for name, value in self._before.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._before |= {name: placed_like(value, self.parameters[name]) for name, value in tensors.items()}


class Importance(Measure):
    """−Σ Δw·g of the last step of an interval. Weights and gradients are copied in that step only."""

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._found: dict[str, float] = {}

    def on_gradients(self, due: int | None) -> None:
        if due == 1:
            self._held = {
                name: (p.detach().clone(), p.grad.detach().clone())
                for name, p in self.parameters.items()
                if p.grad is not None
            }

    def on_optimizer_step(self, due: int | None) -> None:
        if due != 1:
            return
        products = {
            # In place and as a dot product, to avoid further copies of the weights.
            name: torch.dot(before.sub_(self.parameters[name].detach()).flatten(), gradient.flatten())
            for name, (before, gradient) in self._held.items()
        }
        self._held = {}
        self._found = {
            unit.name: sum(float(full(products[p.name])) for p in unit.parameters if p.name in products)
            for unit in self.stack.units
            if any(p.name in products for p in unit.parameters)
        }

    def read(self) -> dict[str, float]:
        return dict(self._found)

    def reset(self) -> None:
        self._found = {}
