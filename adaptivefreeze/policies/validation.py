"""ValidationDriven: the validation metric decides, up and down the stack."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import FreezeMask
from .arguments import check_number
from .base import AdaptivePolicy, Decision, DecisionPoints, Policy, Signals, Trial
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

DEEPER, THAW = "deeper", "thaw"


@register_policy
@dataclass
class ValidationDriven(AdaptivePolicy):
    """Freezes while the metric holds and thaws when it drops, or starts from the head and thaws when it stalls.

    An evaluation **drops** when its metric is worse than the best so far by more than `threshold`, **improves** when
    it is better by more, and else is level. `threshold_mode`: `abs`, or `rel` (a share of the best).

    - `direction="deeper"`: starts with nothing frozen. Evaluations that do not drop, more than `patience` of them in
      a row, freeze `step` more blocks. One that drops thaws the last `step` blocks again.
    - `direction="thaw"`: starts with the head alone. Evaluations that do not improve, more than `patience` in a row,
      thaw `step` blocks from the top. One that drops freezes the blocks thawed last again.

    After each move `cooldown` evaluations decide nothing. A move back is a reversal: after `reversals` of them over
    the same boundary it is not crossed again. `metric` is a key that Trainer reports, with or without `eval_`;
    `mode` is `max`, `min`, or `auto` (`min` for a loss). `keep_optimizer_state`: a thawed block continues with the
    optimizer state that it had, instead of a fresh one.

    Raises `RequestError` for values out of range, and at the first evaluation when the metric is not in it.
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
    _reversed: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_choice("mode", self.mode, ("auto", "max", "min"))
        _check_choice("threshold_mode", self.threshold_mode, ("abs", "rel"))
        _check_choice("direction", self.direction, (DEEPER, THAW))
        check_number(self.name, "threshold", self.threshold, 0)
        for name in ("patience", "cooldown"):
            check_number(self.name, name, getattr(self, name), 0, whole=True)
        for name in ("step", "reversals"):
            check_number(self.name, name, getattr(self, name), 1, whole=True)
        if not isinstance(self.metric, str) or not self.metric:
            raise RequestError(f"validation: metric must be a name that Trainer reports, not {self.metric!r}.")

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(evaluations=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth) if self.direction == DEEPER else FreezeMask.first(stack.depth, stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        value = self._value(signals)
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
        now = max(0, signals.mask.prefix - 1)
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
        """What is crossed going on from `start` to `goal`, and again in coming back: the shallower of the two."""
        return min(start, goal)

    def _gain(self, value: float) -> float:
        assert self._best is not None
        lower = self.mode == "min" or (self.mode == "auto" and self.metric.endswith("loss"))
        gain = self._best - value if lower else value - self._best
        return gain if math.isfinite(gain) else -math.inf

    def _value(self, signals: Signals) -> float:
        metrics = signals.metrics or {}
        for key in (self.metric, f"eval_{self.metric}"):
            if isinstance(metrics.get(key), (int, float)):
                return float(metrics[key])
        numbers = sorted(key for key, value in metrics.items() if isinstance(value, (int, float)))
        raise RequestError(f"validation: no evaluation reports {self.metric!r}; there are {', '.join(numbers)}.")

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        return cls(patience=trial.suggest_int("validation patience", 0, 2))

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best,
            "count": self._count,
            "wait": self._wait,
            "reversed": {str(boundary): times for boundary, times in self._reversed.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._count, self._wait = state["best"], state["count"], state["wait"]
        self._reversed = {int(boundary): times for boundary, times in state["reversed"].items()}


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError(f"validation: {name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}.")
