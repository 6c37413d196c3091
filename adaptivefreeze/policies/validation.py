"""ValidationDriven: freezes and unfreezes blocks by the validation metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import FreezeMask
from .arguments import check_choice, check_number, is_minimized, metric_value
from .base import AdaptivePolicy, Policy, Trial
from .decision import Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

DEEPER, THAW = "deeper", "thaw"


@register_policy
@dataclass
class ValidationDriven(AdaptivePolicy):
    """Freezes deeper while the validation metric holds, and unfreezes when it drops.

    An evaluation drops when its metric is worse than the best so far by more than `threshold`. It improves when the
    metric is better by more than `threshold`.

    - `direction="deeper"` starts with nothing frozen. After more than `patience` evaluations in a row without a drop,
      `step` more blocks freeze. A drop unfreezes the last `step` blocks.
    - `direction="thaw"` starts with the head alone. After more than `patience` evaluations in a row without an
      improvement, `step` blocks unfreeze from the top. A drop freezes the last unfrozen blocks again.

    An evaluation whose metric is not finite, or that does not report it although an earlier one did, changes nothing.

    After each change, `cooldown` evaluations decide nothing. A change caused by a drop is a reversal; a boundary with
    `reversals` reversals is not crossed again, so the mask does not oscillate.

    Args:
        metric: Name of a metric that Trainer reports, with or without the prefix `eval_`.
        mode: `max`, `min`, or `auto`: minimize a metric whose name ends in `loss`, maximize others.
        threshold: Smallest difference that counts, 0 or more.
        threshold_mode: `abs` for an absolute `threshold`, `rel` for a fraction of the best metric.
        patience: Evaluations to wait before a change.
        cooldown: Evaluations to wait after a change.
        step: Number of blocks per change.
        direction: `deeper` or `thaw`.
        reversals: Reversals at one boundary before it is no longer crossed.
        keep_optimizer_state: A block that unfreezes continues with its earlier optimizer state.

    Raises:
        RequestError: When an argument is out of range; at the first evaluation, when it does not report `metric`.
    """

    name: ClassVar[str] = "validation"
    metric: str = "loss"
    mode: str = "auto"
    threshold: float = 0.005
    threshold_mode: str = "abs"
    patience: int = 0
    cooldown: int = 1
    step: int = 1
    direction: str = DEEPER
    reversals: int = 2
    keep_optimizer_state: bool = True
    _best: float | None = field(default=None, init=False, repr=False, compare=False)
    _count: int = field(default=0, init=False, repr=False, compare=False)
    _wait: int = field(default=0, init=False, repr=False, compare=False)
    _reported: bool = field(default=False, init=False, repr=False, compare=False)
    _reversed: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(self.name, "mode", self.mode, ("auto", "max", "min"))
        check_choice(self.name, "threshold_mode", self.threshold_mode, ("abs", "rel"))
        check_choice(self.name, "direction", self.direction, (DEEPER, THAW))
        check_number(self.name, "threshold", self.threshold, 0)
        for name in ("patience", "cooldown"):
            check_number(self.name, name, getattr(self, name), 0, whole=True)
        for name in ("step", "reversals"):
            check_number(self.name, name, getattr(self, name), 1, whole=True)
        if not isinstance(self.metric, str) or not self.metric:
            raise RequestError(f"validation: metric must be a name that Trainer reports, not {self.metric!r}.")

    @property
    def watched_metric(self) -> str:
        return self.metric

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(evaluations=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth) if self.direction == DEEPER else FreezeMask.first(stack.depth, stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        value = metric_value(self.name, self.metric, signals.metrics or {}, reported=self._reported)
        self._reported = True
        if value is None or not math.isfinite(value):
            state = "is not reported" if value is None else f"{value:.4g} is not finite"
            return Decision(signals.mask, f"{self.metric} {state}: no change")
        gain = 0.0 if self._best is None else self._gain(value)
        slack = self.threshold * (abs(self._best or 0.0) if self.threshold_mode == "rel" else 1.0)
        dropped, improved = gain < -slack, gain > slack
        best = value if self._best is None or gain > 0 else self._best
        first, self._best = self._best is None, best
        if first and self.direction == THAW:
            return None
        if self._wait:
            self._wait -= 1
            return None
        depth = signals.mask.depth
        now = signals.mask.leading_blocks
        ahead = 1 if self.direction == DEEPER else -1
        if dropped:
            self._count = 0
            goal, word = now - ahead * self.step, "dropped"
        else:
            self._count = 0 if self.direction == THAW and improved else self._count + 1
            if self._count <= self.patience:
                return None
            goal, word = now + ahead * self.step, "holds" if self.direction == DEEPER else "stalls"
        goal = min(depth, max(0, goal))
        if not dropped and self._reversed.get(self._boundary(now, goal), 0) >= self.reversals:
            return None
        if goal == now:
            return None
        if dropped:
            boundary = self._boundary(goal, now)
            self._reversed[boundary] = self._reversed.get(boundary, 0) + 1
        self._count, self._wait = 0, self.cooldown
        mask = FreezeMask.first(depth, goal) if goal else FreezeMask(depth)
        return Decision(mask, f"{self.metric} {value:.4g} {word} (best {best:.4g}, threshold {slack:.2g})")

    @staticmethod
    def _boundary(start: int, goal: int) -> int:
        """The boundary between two depths: the same in both directions."""
        return min(start, goal)

    def _gain(self, value: float) -> float:
        assert self._best is not None
        return self._best - value if is_minimized(self.metric, self.mode) else value - self._best

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        return cls(patience=trial.suggest_int("validation patience", 0, 2))

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best,
            "count": self._count,
            "wait": self._wait,
            "reported": self._reported,
            "reversed": {str(boundary): times for boundary, times in self._reversed.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._count, self._wait = state["best"], state["count"], state["wait"]
        self._reported = state["reported"]
        self._reversed = {int(boundary): times for boundary, times in state["reversed"].items()}
