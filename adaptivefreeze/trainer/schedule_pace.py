"""Pace: a learning-rate schedule passed faster than step by step, for a run that ends before its steps do."""

from __future__ import annotations

import inspect
import math
from typing import Any


class Pace:
    """Takes a scheduler along at `rate` of its steps per optimizer step; `ahead` is how far it is beyond these.

    Any scheduler that Trainer steps once in each optimizer step can be taken along. One that waits for a metric is
    left alone: then only the end comes sooner.
    """

    def __init__(self, rate: float = 1.0, ahead: float = 0.0) -> None:
        self.rate = rate
        self.ahead = ahead

    def set(self, rate: float) -> None:
        """From now on. Raises `ValueError` for a rate below 1, at which the schedule would outlast the run."""
        if not 1 <= rate < math.inf:
            raise ValueError(f"the pace of a schedule must be 1 or more, not {rate!r}")
        self.rate = rate

    def stepped(self, scheduler: Any, step: int, total: int) -> bool:
        """Step number `step` of `total` has been taken, and the schedule's own. Whether it has ended early."""
        before, self.ahead = self.ahead, min(self.ahead + self.rate - 1, float(total - step))
        more = math.floor(self.ahead) - math.floor(before)
        if more and scheduler is not None and "metrics" not in inspect.signature(scheduler.step).parameters:
            for _ in range(more):
                scheduler.step()
        return self.ahead > 0 and step + self.ahead >= total

    def state_dict(self) -> dict[str, float]:
        """Plain JSON, from which `Pace(**state)` goes on."""
        return {"rate": self.rate, "ahead": self.ahead}
