"""RemainingTime: how long the rest of a study will take, from the predicted cost of each run and the time so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


class RemainingTime:
    """`costs`: the predicted cost of each run to come, in any one unit; `now` gives seconds.

    >>> clock = iter([0.0, 30.0, 30.0]).__next__
    >>> left = RemainingTime([1.0, 0.5], now=clock)  # at 0 s
    >>> left.run_ended()  # at 30 s: the first run is over
    >>> left.seconds()
    15.0
    """

    def __init__(self, costs: Sequence[float], now: Callable[[], float] = time.monotonic) -> None:
        self._costs = list(costs)
        self._now = now
        self._began = now()
        self._done = 0.0
        self._index = 0
        self._ended_at = self._began
        self._share = 0.0

    def stepped(self, done: int, total: int) -> None:
        """`done` of the current run's `total` steps are done."""
        self._share = done / max(1, total)

    def run_ended(self) -> None:
        """The current run is over, well or not."""
        self._done += self._costs[self._index]
        self._index += 1
        self._share = 0.0
        self._ended_at = self._now()

    def seconds(self) -> float | None:
        """Seconds until the last run ends; None before anything is known."""
        current = self._costs[self._index] * self._share if self._index < len(self._costs) else 0.0
        # Between runs nothing is known beyond the last one: its evaluation on the test split is part of its time.
        elapsed = (self._now() if current else self._ended_at) - self._began
        done = self._done + current
        if done <= 0 or elapsed <= 0:
            return None
        return max(0.0, sum(self._costs) - done) * elapsed / done
