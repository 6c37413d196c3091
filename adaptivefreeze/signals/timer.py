"""StepTimer: how long the parts of a step take on this machine, by its clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.cost import StepSeconds

# Fewer timed steps say too little.
ENOUGH = 3
_PARTS = ("forward", "backward", "optimizer", "other")


class StepTimer:
    """Times the parts of full steps, while nothing is frozen, and how long all steps have taken.

    A step is what lies between Trainer's `on_step_begin` and `on_step_end`: no loading, logging, evaluating. Of the
    parts, what other measures do is left out, and the first step of all, in which buffers are made. A GPU would have
    to be waited for at the bounds of the parts: there only one step an interval is timed, the last before a moment.

    Full steps may all lie where the data has its longest texts, as the first ones do in batches of like length: forward
    and backward are given for as many tokens as the mean of all steps has.
    """

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        parameters = dict(model.named_parameters())
        self._trained = [parameters[p.name] for unit in stack.units for p in unit.parameters if p.trainable]
        self._device = next(model.parameters()).device
        self._samples: list[list[float]] = []
        self._taken = 0.0
        self._steps = self._tokens = self._tokens_here = 0  # all so far, and in this step
        self._parts: dict[str, float] | None = None  # of the step that is being timed
        self._stepped = False
        self._first = True
        self._at = self._began = 0.0

    def seconds(self) -> StepSeconds | None:
        """The mean of the timed steps, or None when they are too few."""
        if len(self._samples) < ENOUGH:
            return None
        forward, backward, optimizer, other, tokens = map(statistics.mean, zip(*self._samples, strict=True))
        longer = self._tokens / self._steps / tokens if tokens else 1.0
        return StepSeconds(forward * longer, backward * longer, optimizer, other)

    def taken(self) -> float | None:
        """Time of all steps so far / time of a full one; None as long as too few were timed."""
        full = self.seconds()
        return None if full is None else self._taken / full.total

    def begin(self, due: int | None) -> None:
        """A step begins. `due` as for `Measure`."""
        timed = (due == 1 or self._device.type == "cpu") and not self._first
        timed = timed and all(p.requires_grad for p in self._trained)
        self._parts, self._stepped, self._first = dict.fromkeys(_PARTS, 0.0) if timed else None, False, False
        self._tokens_here = 0
        self._began = time.perf_counter()
        self.go_on()

    def batch(self, tokens: int) -> None:
        """A forward pass begins, of a batch of so many tokens, padding included."""
        self._tokens_here += tokens
        if self._parts is not None:
            self._lap("backward" if self._parts["forward"] else "other")

    def passed(self) -> None:
        """The forward pass has ended."""
        self._lap("forward")

    def gradients(self) -> None:
        """The gradients are complete, and no measure has looked at them yet."""
        self._lap("backward")

    def stepped(self) -> None:
        """The optimizer has stepped, and no measure has looked at that yet."""
        self._lap("optimizer")
        self._stepped = True

    def go_on(self) -> None:
        """The measures have looked: what passed meanwhile does not count."""
        self._lap(None)

    def end(self) -> None:
        """The step has ended."""
        self._lap("other")
        if self._parts is not None and self._stepped:  # AMP leaves an update out now and then
            self._samples.append([*(self._parts[part] for part in _PARTS), float(self._tokens_here)])
        self._parts = None
        self._steps, self._tokens = self._steps + 1, self._tokens + self._tokens_here
        self._taken += time.perf_counter() - self._began

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint needs."""
        samples = torch.tensor(self._samples, dtype=torch.float64).reshape(-1, len(_PARTS) + 1)
        return {
            "seconds": samples,
            "taken": torch.tensor(self._taken, dtype=torch.float64),
            "steps": torch.tensor([self._steps, self._tokens]),
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self._samples, self._taken = tensors["seconds"].tolist(), float(tensors["taken"])
        self._steps, self._tokens = tensors["steps"].tolist()

    def _lap(self, part: str | None) -> None:
        """Since the last lap the device was at work on `part`."""
        if self._parts is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if part is not None:
            self._parts[part] += now - self._at
        self._at = now
