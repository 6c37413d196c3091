"""Predicted cost of a training step at each depth, for batches like those seen so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.cost import FILLING, StepCost, StepShape, cost_ratio, predict
from ..model.mask import FreezeMask
from ..policies.decision import StepCosts
from .profiler import StepProfiler


class Costs:
    """Predicts costs from the mean shape of the batches, and from measured times of full steps if there is a profiler.

    Args:
        model: The model that is trained.
        stack: Its units.
        accumulation: Micro-batches per optimizer step.
        profiler: Times the parts of full steps. None for a prediction from shapes alone.
    """

    def __init__(
        self, model: nn.Module, stack: BlockStack, *, accumulation: int = 1, profiler: StepProfiler | None = None
    ) -> None:
        self.stack = stack
        self._profiler = profiler
        self._accumulation = accumulation
        self._seen = torch.zeros(3, dtype=torch.int64)  # number of batches, of examples, of tokens
        self._predicted: tuple[StepShape, list[list[StepCost]]] | None = None

    def on_batch(self, inputs: Mapping[str, Any]) -> None:
        """Called before a training forward pass. The first input of shape (batch, tokens, …) is used."""
        shape = next((v.shape for v in inputs.values() if isinstance(v, torch.Tensor) and v.dim() > 1), None)
        if shape is not None:
            self._seen += torch.tensor([1, shape[0], shape[0] * shape[1]])
        if self._profiler is not None:
            self._profiler.on_batch(0 if shape is None else shape[0] * shape[1])

    def read(self, cached: bool, examples_pass: float) -> StepCosts:
        """Return the cost of each depth relative to full fine-tuning.

        Args:
            cached: Whether the prefix cache is active.
            examples_pass: Optimizer steps in one pass over the training data.
        """
        batches, examples, tokens = self._seen.tolist()
        shape = StepShape()
        if batches:
            size = max(1, round(examples / batches))
            shape = StepShape(size * self._accumulation, max(1, round(tokens / examples)))
        if self._predicted is None or self._predicted[0] != shape:
            self._predicted = shape, self._predict(shape)
        measured = None if self._profiler is None else self._profiler.seconds()
        run, skipped = (
            tuple(cost_ratio(cost, depths[0], measured) for cost in depths) for depths in self._predicted[1]
        )
        taken = None if self._profiler is None else self._profiler.full_steps_taken()
        return StepCosts(run, skipped if cached else run, cached, examples_pass, FILLING, taken)

    def _predict(self, shape: StepShape) -> list[list[StepCost]]:
        """The cost of each depth, first with the frozen prefix run, then with it skipped."""
        masks = [FreezeMask(self.stack.depth)]
        masks += [FreezeMask.first(self.stack.depth, k) for k in range(1, self.stack.depth + 1)]
        return [[predict(self.stack, mask, shape, cached=skips) for mask in masks] for skips in (False, True)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state for a checkpoint."""
        return {"seen": self._seen, **(self._profiler.tensors() if self._profiler else {})}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned."""
        self._seen = tensors["seen"].clone()
        if self._profiler is not None:
            self._profiler.load(tensors)
