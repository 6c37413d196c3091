"""RandomPrefix: the control, a prefix that grows as an adaptive one does, but blindly."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import FreezeMask
from .arguments import check_number, intervals
from .base import DecisionPoints, Schedule, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack
    from ..model.timeline import Timeline


@register_policy
@dataclass
class RandomPrefix(Schedule):
    """At each decision, `intervals` of them an epoch, the prefix grows by a number of blocks drawn at random.

    The numbers are geometrically distributed (0 most often), `growth` on the mean: what AutoFreeze with percentile 50
    does where its signal is noise. The first interval decides nothing, as AutoFreeze's, and the last block never
    freezes; `deepest` stops the growth earlier. A pure function of `seed` and the step.

    Raises `RequestError` for a growth below 0, for intervals not above 0, for a `deepest` below 0.
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
        """The control of a run: as many decisions an epoch, as much growth a decision, and no deeper than it went."""
        depths = [max(0, change.mask.prefix - 1) for change in timeline]
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
        # Blocks until the first failure, each going on with this probability: the mean is growth.
        on = self.growth / (1 + self.growth)
        return int(math.log(1 - random.Random(f"{self.seed}/{number}").random()) / math.log(on))

    def why(self, signals: Signals) -> str:
        return f"drawn with seed {self.seed}"
