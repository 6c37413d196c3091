"""SchedulePace: advances a learning-rate schedule faster than one step per optimizer step."""

from __future__ import annotations

import inspect
import math
from typing import Any

_ROUNDING = 1e-6  # in steps: above the error of a sum of fractions of a step


class SchedulePace:
    """Advances a scheduler by `rate` of its steps per optimizer step, so that the run ends early with its schedule.

    It works with any scheduler that Trainer advances once per optimizer step. A scheduler that depends on a metric is
    not advanced: then the run ends early and the learning rate is as it would be.

    Args:
        rate: Scheduler steps per optimizer step, 1 or more.
        ahead: How many steps the schedule is ahead of the optimizer.
        skipping: Steps of a whole epoch per step of the present one, from which examples are left out. It multiplies
            the rate.
    """

    def __init__(self, rate: float = 1.0, ahead: float = 0.0, skipping: float = 1.0) -> None:
        self.rate = rate
        self.ahead = ahead
        self.skipping = skipping

    def set_rate(self, rate: float) -> None:
        """Change the rate from now on.

        Raises:
            ValueError: For a rate below 1, with which the run would end before its schedule.
        """
        if not 1 <= rate < math.inf:
            raise ValueError(f"the pace of a schedule must be 1 or more, not {rate!r}")
        self.rate = rate

    def set_skipping(self, skipping: float) -> None:
        """Change how many steps of a whole epoch a step stands for."""
        self.skipping = skipping

    def advance(self, scheduler: Any, step: int, total_steps: int) -> bool:
        """Take the additional scheduler steps of one optimizer step.

        Args:
            scheduler: The scheduler, or None. It has taken its own step already.
            step: Number of optimizer steps taken, the current one included.
            total_steps: Number of optimizer steps planned.

        Returns:
            Whether the schedule has ended early.
        """
        rate = self.rate * self.skipping
        before, self.ahead = self.ahead, min(self.ahead + rate - 1, float(total_steps - step))
        additional = math.floor(self.ahead + _ROUNDING) - math.floor(before + _ROUNDING)
        if additional and scheduler is not None and "metrics" not in inspect.signature(scheduler.step).parameters:
            for _ in range(additional):
                scheduler.step()
        return self.ahead > 0 and step + self.ahead + _ROUNDING >= total_steps

    def remaining_steps(self, step: int, total_steps: int) -> float:
        """Return the number of optimizer steps that are left at the present rate, after `step` steps."""
        return max(0.0, total_steps - step - self.ahead) / (self.rate * self.skipping)

    def state_dict(self) -> dict[str, float]:
        """Return the state as plain JSON. `SchedulePace(**state)` restores it."""
        return {"rate": self.rate, "ahead": self.ahead, "skipping": self.skipping}
