"""AutoRGN: scales a unit's learning rate by its relative gradient norm (Lee et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import FreezeMask
from .arguments import check_number, intervals
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Norms, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass(frozen=True)
class AutoRGN(AdaptivePolicy):
    """Scales each unit's learning rate by ‖g‖₂ / ‖w‖₂, relative to the largest ratio.

    g is the gradient accumulated over an interval, and w the weights at its end. The unit with the largest ratio,
    usually the head, keeps the scheduled learning rate. With `freeze` above 0, the leading blocks whose factor is
    below `freeze` are frozen together with the embeddings; the last block never freezes. The policy has no state.

    Reference: Lee et al. 2022, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (arXiv 2210.11466).

    Args:
        intervals: Decision points per epoch.
        freeze: Factor below which leading blocks freeze, from 0 (never) to 1.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "autorgn"
    intervals: float = 5
    freeze: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.name, "intervals", self.intervals, 0, open_low=True)
        check_number(self.name, "freeze", self.freeze, 0, 1)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"gradients", "weights"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(frozenset(intervals(self.intervals, total_steps, steps_per_epoch)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.gradients is not None
        assert signals.weights is not None
        if undefined := signals.non_finite():
            return undefined
        ratios = _ratios(signals.gradients, signals.weights, signals.mask)
        largest = max(ratios.values(), default=0.0)
        if largest == 0:  # no gradient
            return None
        factors = {name: ratio / largest for name, ratio in ratios.items()}
        depth, mask = signals.mask.depth, signals.mask
        first = mask.leading_blocks
        frozen = first
        while frozen < depth - 1 and factors.get(f"block {frozen}", 1.0) < self.freeze:
            frozen += 1
        if frozen > first:
            mask = FreezeMask.first(depth, frozen) | mask
        shown = " ".join(f"{factor:.2g}".removeprefix("0") for factor in factors.values())
        return Decision(mask, f"learning rates × [{shown}]", learning_rates=factors)


def _ratios(gradients: Mapping[str, Norms], weights: Mapping[str, Norms], mask: FreezeMask) -> dict[str, float]:
    return {
        name: norms.l2 / weights[name].l2
        for name, norms in gradients.items()
        if name not in mask.units and weights[name].l2 > 0
    }
