"""RandomPrefix: the control for adaptive policies, a prefix that grows at random."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import FreezeMask
from .arguments import check_number, intervals
from .base import Schedule
from .decision import DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack
    from ..model.timeline import Timeline


@register_policy
@dataclass
class RandomPrefix(Schedule):
    """Grows the frozen prefix by a random number of blocks at each decision point.

    The numbers are geometrically distributed with mean `growth`, 0 being the most frequent: this is what AutoFreeze
    with percentile 50 does when its signal is noise. As in AutoFreeze, the first interval decides nothing and the last
    block never freezes. An adaptive policy that does not beat this control has no useful signal. The policy has no
    state.

    Args:
        growth: Mean number of blocks per decision point.
        intervals: Decision points per epoch.
        deepest: Largest number of frozen blocks; None for all but the last.
        seed: Seed of the draws.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "random-prefix"
    growth: float = 0.9
    intervals: float = 5
    deepest: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.name, "growth", self.growth, 0)
        check_number(self.name, "intervals", self.intervals, 0, open_low=True)
        if self.deepest is not None:
            check_number(self.name, "deepest", self.deepest, 0, whole=True)
        check_number(self.name, "seed", self.seed, 0, whole=True)

    @classmethod
    def like(cls, timeline: Timeline, intervals: float, seed: int = 0) -> RandomPrefix:
        """Return the control of a finished run: the same mean growth per decision, up to the same depth.

        Args:
            timeline: The timeline of the run.
            intervals: Decision points per epoch of the run.
            seed: Seed of the draws.
        """
        depths = [change.mask.leading_blocks for change in timeline]
        deepest = max(depths)
        decisions = max(1, depths.index(deepest))
        return cls(growth=(deepest - depths[0]) / decisions, intervals=intervals, deepest=deepest, seed=seed)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(frozenset(intervals(self.intervals, total_steps, steps_per_epoch)[1:]))

    def at(self, step: int, depth: int, total_steps: int, steps_per_epoch: float) -> FreezeMask:
        ends = intervals(self.intervals, total_steps, steps_per_epoch)[1:]
        grown = sum(self._draw(number) for number, end in enumerate(ends) if end <= step)
        blocks = min(grown, depth - 1, depth if self.deepest is None else self.deepest)
        return FreezeMask.first(depth, blocks) if blocks else FreezeMask(depth)

    def _draw(self, number: int) -> int:
        if self.growth == 0:
            return 0
        # Geometric distribution with mean `growth`: the number of successes before the first failure.
        on = self.growth / (1 + self.growth)
        return int(math.log(1 - random.Random(f"{self.seed}/{number}").random()) / math.log(on))

    def why(self, signals: Signals) -> str:
        return f"drawn with seed {self.seed}"
