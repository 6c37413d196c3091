"""AutoFreeze: freeze the first blocks whose accumulated gradient has stopped changing (Liu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..model.mask import FreezeMask, block_name
from .arguments import check_number, intervals
from .base import AdaptivePolicy, Decision, DecisionPoints, Policy, Signals, Trial
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass
class AutoFreeze(AdaptivePolicy):
    """Freezes the blocks before the first one whose gradient still changes (arXiv 2102.01386).

    Over an interval, `intervals` of them an epoch, the signed gradients of all steps are added up; g is the L1 norm
    of a block's sum, and η = |g before − g now| / g before. The new first block to train is the first one whose η
    reaches the `percentile`-th percentile of η over the blocks that still train, so a block freezes only together
    with all before it. The first interval only gives the g to compare with. The last block never freezes, the
    embeddings freeze with the first block, and what is frozen stays frozen.

    Raises `RequestError` for a percentile outside of (0, 100] and for intervals that are not above 0.
    """

    name: ClassVar[str] = "autofreeze"
    percentile: float = 50
    intervals: float = 5
    _before: dict[str, float] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "percentile", self.percentile, 0, 100, open_low=True)
        check_number(self.name, "intervals", self.intervals, 0, open_low=True)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"block gradients"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(frozenset(intervals(self.intervals, total_steps, steps_per_epoch)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.gradients is not None
        before, depth = self._before, signals.mask.depth
        now = {name: norms.l1 for name, norms in signals.gradients.items()}
        self._before = now
        if before is None:
            return None
        first = max(0, signals.mask.prefix - 1)
        if first == depth:  # all blocks are frozen, which a wrapper may have done
            return None
        changes = [_change(before.get(block_name(i)), now.get(block_name(i), 0.0)) for i in range(first, depth)]
        threshold = percentile_of(changes, self.percentile)
        frozen = first + next(i for i, change in enumerate(changes) if change >= threshold)
        mask = signals.mask if frozen == first else FreezeMask.first(depth, frozen) | signals.mask
        shown = " ".join(f"{change:.2g}".removeprefix("0") for change in changes)
        return Decision(mask, f"η = [{shown}], threshold {threshold:.2g}")

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        return cls(percentile=trial.suggest_int("autofreeze percentile", 25, 75, step=5))

    def state_dict(self) -> dict[str, Any]:
        return {"before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before = state["before"]


def _change(before: float | None, now: float) -> float:
    """η of a block. One that was not measured before, or whose gradient is no number, counts as still changing."""
    if before is None or not math.isfinite(before) or not math.isfinite(now):
        return math.inf
    if before == 0:
        return 0.0 if now == 0 else math.inf
    return abs(before - now) / before


def percentile_of(values: Sequence[float], percentile: float) -> float:
    """The percentile with linear interpolation between neighbours, as numpy's default; infinities sort last."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percentile / 100
    low = math.floor(position)
    if low + 1 >= len(ordered) or position == low:
        return ordered[low]
    below, above = ordered[low], ordered[low + 1]
    if math.isinf(above):
        return above
    return min(above, below + (above - below) * (position - low))
