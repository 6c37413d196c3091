"""StepProfiler: measured seconds of the parts of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.cost import StepSeconds

# Steps to time before the result is used.
ENOUGH = 3
_PARTS = ("forward", "backward", "optimizer", "other")


class StepProfiler:
    """Times the parts of full steps, while nothing is frozen, and the total of all steps.

    A step lasts from `on_step_begin` to `on_step_end` of the Trainer, without data loading, logging and evaluation.
    The parts exclude the time of other measures. The very first step, which allocates buffers, is not timed. On a GPU
    each part ends with a synchronization, so only the last step before each decision point is timed there.

    Full steps may not be representative: with batches of similar lengths the first ones can be the longest. Therefore
    forward and backward times are scaled to the mean number of tokens of all steps.

    Args:
        model: The model that is trained.
        stack: Its units.
    """

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        parameters = dict(model.named_parameters())
        self._trained = [parameters[p.name] for unit in stack.units for p in unit.parameters if p.trainable]
        self._device = next(model.parameters()).device
        self._samples: list[list[float]] = []
        self._total_seconds = 0.0
        self._steps = self._tokens = self._step_tokens = 0  # all steps, all tokens, tokens of this step
        self._parts: dict[str, float] | None = None  # of the step that is being timed
        self._optimizer_stepped = False
        self._first = True
        self._lap_begin = self._step_begin = 0.0

    def seconds(self) -> StepSeconds | None:
        """Return the mean of the timed steps, or None if they are fewer than `ENOUGH`."""
        if len(self._samples) < ENOUGH:
            return None
        forward, backward, optimizer, other, tokens = map(statistics.mean, zip(*self._samples, strict=True))
        scale = self._tokens / self._steps / tokens if tokens else 1.0
        return StepSeconds(forward * scale, backward * scale, optimizer, other)

    def full_steps_taken(self) -> float | None:
        """Return the time of all steps so far in units of a full step, or None if too few steps were timed."""
        full = self.seconds()
        return None if full is None else self._total_seconds / full.total

    def begin_step(self, due: int | None) -> None:
        """Called at the start of a step. `due` is as for `Measure`."""
        timed = (due == 1 or self._device.type == "cpu") and not self._first
        timed = timed and all(p.requires_grad for p in self._trained)
        self._parts = dict.fromkeys(_PARTS, 0.0) if timed else None
        self._optimizer_stepped, self._first = False, False
        self._step_tokens = 0
        self._step_begin = time.perf_counter()
        self.resume()

    def on_batch(self, tokens: int) -> None:
        """Called before a forward pass, with the number of tokens in the batch including padding."""
        self._step_tokens += tokens
        if self._parts is not None:
            self._lap("backward" if self._parts["forward"] else "other")

    def on_forward_end(self) -> None:
        """Called after a forward pass."""
        self._lap("forward")

    def on_gradients(self) -> None:
        """Called when the gradients are complete, before other measures read them."""
        self._lap("backward")

    def on_optimizer_step(self) -> None:
        """Called after a step of the optimizer, before other measures read the weights."""
        self._lap("optimizer")
        self._optimizer_stepped = True

    def resume(self) -> None:
        """Ignore the time since the last event. Called after other measures have run."""
        self._lap(None)

    def end_step(self) -> None:
        """Called at the end of a step."""
        self._lap("other")
        if self._parts is not None and self._optimizer_stepped:  # AMP skips an update now and then
            self._samples.append([*(self._parts[part] for part in _PARTS), float(self._step_tokens)])
        self._parts = None
        self._steps, self._tokens = self._steps + 1, self._tokens + self._step_tokens
        self._total_seconds += time.perf_counter() - self._step_begin

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state for a checkpoint."""
        samples = torch.tensor(self._samples, dtype=torch.float64).reshape(-1, len(_PARTS) + 1)
        return {
            "seconds": samples,
            "taken": torch.tensor(self._total_seconds, dtype=torch.float64),
            "steps": torch.tensor([self._steps, self._tokens]),
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned."""
        self._samples, self._total_seconds = tensors["seconds"].tolist(), float(tensors["taken"])
        self._steps, self._tokens = tensors["steps"].tolist()

    def _lap(self, part: str | None) -> None:
        """Add the time since the last lap to `part`."""
        if self._parts is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if part is not None:
            self._parts[part] += now - self._lap_begin
        self._lap_begin = now
