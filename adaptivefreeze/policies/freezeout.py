"""FreezeOut: anneals the learning rate of each block to zero, lower blocks first (Brock et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import EMBEDDINGS, FreezeMask, block_name
from .arguments import check_number
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass(frozen=True)
class FreezeOut(AdaptivePolicy):
    """Anneals the learning rate of each block to zero, then freezes the block.

    Block i of L freezes at the fraction t_i = (t0 + (1 − t0)·i/L)³ of the run. Until then its learning rate is
    (1 + cos(π·t/t_i))/2 times the scheduled one. The embeddings follow block 0; the head keeps the scheduled learning
    rate. The policy has no state.

    Reference: Brock et al. 2017, "FreezeOut: Accelerate Training by Progressively Freezing Layers" (arXiv 1706.04983).

    Args:
        t0: Fraction of the run after which the first block freezes, before cubing; above 0 and up to 1.
        cubic: Cube t_i.
        scaled: Divide the learning rate by t_i, so that all blocks have the same sum of learning rates.

    Raises:
        RequestError: When `t0` is out of range.
    """

    name: ClassVar[str] = "freezeout"
    t0: float = 0.8
    cubic: bool = True
    scaled: bool = True

    def __post_init__(self) -> None:
        check_number(self.name, "t0", self.t0, 0, 1, open_low=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, total_steps))

    def update(self, signals: Signals) -> Decision | None:
        depth, done = signals.mask.depth, signals.step / signals.total_steps
        ends = [self.end(i, depth) for i in range(depth)]
        frozen = sum(end <= done for end in ends)
        mask = FreezeMask.first(depth, frozen) if frozen else FreezeMask(depth)
        factors = self._factors(done, depth)
        reason = ""
        if mask != signals.mask:
            reason = f"{done:.2f} of the run is over, block {frozen - 1} ends at {ends[frozen - 1]:.2f}"
        return Decision(mask, reason, learning_rates=factors)

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        return self._factors(0.0, stack.depth)

    def _factors(self, done: float, depth: int) -> dict[str, float]:
        factors = {}
        for i in range(depth):
            end = self.end(i, depth)
            if end > done:
                factors[block_name(i)] = 0.5 * (1 + math.cos(math.pi * done / end)) / (end if self.scaled else 1.0)
        if block_name(0) in factors:
            factors[EMBEDDINGS] = factors[block_name(0)]
        return factors

    def end(self, block: int, depth: int) -> float:
        """Return the fraction of the run after which a block of a model with `depth` blocks is frozen."""
        share = self.t0 + (1 - self.t0) * block / depth
        return float(share**3 if self.cubic else share)
