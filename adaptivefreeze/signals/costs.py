"""What each depth costs, for batches like those that were trained on so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.cost import FILLING, StepCost, StepShape, cost_ratio, predict
from ..model.mask import FreezeMask
from ..policies.base import StepCosts
from .timer import StepTimer


class Costs:
    """Notes the shapes of batches, and predicts from their mean; with a timer, from measured full steps as well."""

    def __init__(
        self, model: nn.Module, stack: BlockStack, *, accumulation: int = 1, timer: StepTimer | None = None
    ) -> None:
        self.stack = stack
        self._timer = timer
        self._accumulation = accumulation
        self._seen = torch.zeros(3, dtype=torch.int64)  # batches, examples, examples × tokens
        self._predicted: tuple[StepShape, list[list[StepCost]]] | None = None

    def batch(self, inputs: Mapping[str, Any]) -> None:
        """A training forward pass begins with these inputs; the first of (batch, tokens, …) shape counts."""
        shape = next((v.shape for v in inputs.values() if isinstance(v, torch.Tensor) and v.dim() > 1), None)
        if shape is not None:
            self._seen += torch.tensor([1, shape[0], shape[0] * shape[1]])
        if self._timer is not None:
            self._timer.batch(0 if shape is None else shape[0] * shape[1])

    def read(self, cached: bool, examples_pass: float) -> StepCosts:
        """`cached`: whether the prefix cache is at work; `examples_pass`: steps in one pass over the data."""
        batches, examples, tokens = self._seen.tolist()
        shape = StepShape()
        if batches:
            size = max(1, round(examples / batches))
            shape = StepShape(size * self._accumulation, max(1, round(tokens / examples)))
        if self._predicted is None or self._predicted[0] != shape:
            self._predicted = shape, self._predict(shape)
        measured = None if self._timer is None else self._timer.seconds()
        run, skipped = (
            tuple(cost_ratio(cost, depths[0], measured) for cost in depths) for depths in self._predicted[1]
        )
        taken = None if self._timer is None else self._timer.taken()
        return StepCosts(run, skipped if cached else run, cached, examples_pass, FILLING, taken)

    def _predict(self, shape: StepShape) -> list[list[StepCost]]:
        """The cost of each depth, with the prefix run and with it skipped."""
        masks = [FreezeMask(self.stack.depth)]
        masks += [FreezeMask.first(self.stack.depth, k) for k in range(1, self.stack.depth + 1)]
        return [[predict(self.stack, mask, shape, cached=skips) for mask in masks] for skips in (False, True)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint needs."""
        return {"seen": self._seen, **(self._timer.tensors() if self._timer else {})}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self._seen = tensors["seen"].clone()
        if self._timer is not None:
            self._timer.load(tensors)
