"""ShortFull: full fine-tuning in fewer steps, the control for everything that saves time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import FreezeMask
from .arguments import check_number
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass(frozen=True)
class ShortFull(AdaptivePolicy):
    """Freezes nothing, and ends the learning-rate schedule after a share of the steps.

    The schedule passes faster from the second step on and keeps its shape. The run ends with it. A policy that saves
    time and does not end higher than this control in the same time is not worth its freezing.

    Args:
        ratio: Share of the steps, above 0 and up to 1. At least two steps are taken.

    Raises:
        RequestError: When `ratio` is out of range.

    Example:
        >>> str(ShortFull(0.5))
        'short-full:0.5'
    """

    name: ClassVar[str] = "short-full"
    ratio: float

    def __post_init__(self) -> None:
        check_number(self.name, "ratio", self.ratio, 0, 1, open_low=True)

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, min(2, total_steps)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        left = signals.total_steps - signals.step
        steps = max(1, round(self.ratio * signals.total_steps) - signals.step)
        # The sum of many rounded paces must not fall short of the end of the schedule.
        pace = 1.0 if steps >= left else left / steps * (1 + 1e-9)
        return Decision(signals.mask, f"full fine-tuning in {signals.step + min(steps, left)} steps", pace=pace)
