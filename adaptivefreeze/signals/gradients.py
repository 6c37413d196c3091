"""Norms of the accumulated signed gradient, and the change of the gradient between steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.sharding import full, placed_like
from ..policies.decision import Norms
from .base import Measure, at_least_float32, block_names, norms_of


class GradientSum(Measure):
    """Sums the gradients of each parameter over an interval, at one addition per element and step.

    Args:
        blocks_only: Whether to leave out the embeddings and the head.
    """

    def __init__(self, model: nn.Module, stack: BlockStack, *, blocks_only: bool = False) -> None:
        super().__init__(model, stack)
        self._units = block_names(stack) if blocks_only else [unit.name for unit in stack.units]
        wanted = set(self._units)
        self._names = [p.name for unit in stack.units if unit.name in wanted for p in unit.parameters]
        self._sums: dict[str, torch.Tensor] = {}
        self._stale: dict[str, torch.Tensor] = {}  # buffers of the last interval, to be reused

    def on_gradients(self, due: int | None) -> None:
        sums, parts = [], []
        for name in self._names:
            gradient = self.parameters[name].grad
            if gradient is None:
                continue
            if gradient.layout != torch.strided:
                gradient = gradient.to_dense()
            if name in self._sums:
                sums.append(self._sums[name])
                parts.append(gradient)
            elif name in self._stale:
                self._sums[name] = self._stale.pop(name).copy_(gradient)
            else:
                self._sums[name] = at_least_float32(gradient.detach()).clone()
        self._stale = {name: kept for name, kept in self._stale.items() if self.parameters[name].requires_grad}
        if sums:
            torch._foreach_add_(sums, parts)

    def read(self) -> dict[str, Norms]:
        return norms_of(self._sums, self.stack, self._units)

    def reset(self) -> None:
        self._stale |= self._sums
        self._sums = {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: full(value) for name, value in self._sums.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._sums = {name: placed_like(value, self.parameters[name]) for name, value in tensors.items()}


class GradientChange(Measure):
    """Compares the gradients of the last two steps of an interval. The other steps cost nothing."""

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._before: dict[str, torch.Tensor] = {}
        self._changes: dict[str, torch.Tensor] = {}

    def on_gradients(self, due: int | None) -> None:
        found = {name: at_least_float32(p.grad.detach()) for name, p in self.parameters.items() if p.grad is not None}
        if due == 1:
            self._changes = {
                name: (gradient - self._before[name]).abs().mean()
                for name, gradient in found.items()
                if name in self._before
            }
        # Also when due is 1, because the next step may be followed by a decision too.
        self._before = {name: gradient.clone() for name, gradient in found.items()} if due in (1, 2) else {}

    def read(self) -> dict[str, float]:
        return {name: float(full(change)) for name, change in self._changes.items()}

    def reset(self) -> None:
        self._changes = {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: full(value) for name, value in self._before.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._before = {name: placed_like(value, self.parameters[name]) for name, value in tensors.items()}
