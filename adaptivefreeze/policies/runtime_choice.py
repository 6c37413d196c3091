"""RuntimeChoice: after each evaluation goes on, freezes or stops, by predicted gain and predicted energy."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from .arguments import check_choice, check_number, is_minimized, metric_value
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals, StepCosts
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

MEASURED = 50  # points at which importance is measured
SMOOTHING = 0.3  # weight of a new importance in the moving average


@register_policy
@dataclass
class RuntimeChoice(AdaptivePolicy):
    """After each evaluation goes on as before, freezes more blocks, or stops, whichever is predicted to be worth most.

    - The gains of the metric from evaluation to evaluation are predicted by an autoregression of first order, fitted
      to the run's own gains: each is the previous one times a factor between 0 and 1. An evaluation that is less than
      half of the largest distance from another, such as one at the end of an epoch, does not count beside it.
    - With more blocks frozen, a gain is multiplied by the share of importance that stays trainable, where importance
      is −Σ Δw·g of a step, smoothed.
    - Energy is predicted from the shapes of the batches, including the passes that fill and read the prefix cache, and
      is a fraction of that of full fine-tuning for the whole run.
    - A choice is worth its predicted gain minus `price` times its predicted energy, up to the evaluation at which that
      is highest. Stopping is worth 0. A predicted loss, such as from overfitting, stops the run.

    Reference: Reguero, Martínez-Fernández and Verdecchia 2025, "Energy-efficient neural network training through
    runtime layer freezing, model quantization, and early stopping" (DOI 10.1016/j.csi.2024.103906), from its abstract.
    Their autoregression was fitted to a data set of earlier runs with each intervention. Here it is fitted to the run
    itself, and importance replaces what those runs told about freezing. Quantisation is no choice of this policy: with
    `PrefixCache(compute="int8")` the frozen prefix runs in 8 bits whenever it fills the cache.

    Args:
        metric: Name of a metric that Trainer reports, with or without the prefix `eval_`.
        mode: `max`, `min`, or `auto`: minimize a metric whose name ends in `loss`, maximize others.
        price: Gain in the metric for which the energy of a whole run of full fine-tuning may be spent.
        first: Number of evaluations that count before the first decision, 3 or more.

    Raises:
        RequestError: When an argument is out of range; at the first evaluation, when it does not report `metric`.
    """

    name: ClassVar[str] = "runtime-choice"
    metric: str = "loss"
    mode: str = "auto"
    price: float = 0.05
    first: int = 3
    _evaluations: list[tuple[int, float]] = field(default_factory=list, init=False, repr=False, compare=False)
    _importance: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(self.name, "mode", self.mode, ("auto", "max", "min"))
        check_number(self.name, "price", self.price, 0)
        check_number(self.name, "first", self.first, 3, whole=True)
        if not isinstance(self.metric, str) or not self.metric:
            raise RequestError(f"{self.name}: metric must be a name that Trainer reports, not {self.metric!r}.")

    @property
    def watched_metric(self) -> str:
        return self.metric

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"importance", "costs"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, total_steps, max(1, total_steps // MEASURED)), evaluations=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        if undefined := signals.non_finite():
            return undefined
        for name, value in (signals.importance or {}).items():
            known = self._importance.get(name, value)
            self._importance[name] = known + SMOOTHING * (value - known)
        if signals.metrics is None:
            return None
        score = metric_value(self.name, self.metric, signals.metrics, reported=bool(self._evaluations))
        if score is None or not math.isfinite(score):
            return None
        if not self._evaluations or signals.step > self._evaluations[-1][0]:
            self._evaluations.append((signals.step, -score if is_minimized(self.metric, self.mode) else score))
        spaced = evenly_spaced(self._evaluations)
        if len(spaced) < self.first or signals.step >= signals.total_steps:
            return None
        return self._choice(signals, spaced)

    def _choice(self, signals: Signals, evaluations: list[tuple[int, float]]) -> Decision | None:
        """The decision with the highest predicted worth, or None to go on as before."""
        assert signals.costs is not None
        depth, now = signals.mask.depth, signals.mask.leading_blocks
        distance = evaluations[-1][0] - evaluations[-2][0]
        evaluated = range(signals.step + distance, signals.total_steps + distance, distance)
        steps = [min(signals.total_steps, at) - signals.step for at in evaluated]
        gains = predicted_gains([value for _, value in evaluations], len(steps))
        trained = self._trained(now, depth)
        worth = {}
        for k in range(now, depth + 1):
            share = self._trained(k, depth) / trained if trained > 0 else float(k == now)
            worth[k] = max(
                share * gain - self.price * energy(signals.costs, k, count, moved=k != now) / signals.total_steps
                for gain, count in zip(gains, steps, strict=True)
            )
        best = max(worth, key=lambda k: worth[k])
        shown = f"{self.metric} is predicted to gain {gains[-1]:.2g}"
        if worth[best] <= 0:
            return Decision(signals.mask, f"stopped: {shown}, which is not worth the energy", stop=True)
        if best == now:
            return None
        return Decision(
            FreezeMask.first(depth, best), f"{shown}; frozen, {worth[best]:.2g} is left after the price of the energy"
        )

    def _trained(self, prefix: int, depth: int) -> float:
        """Importance of the units above the first `prefix` blocks."""
        names = [block_name(i) for i in range(prefix, depth)] + [HEAD] + ([] if prefix else [EMBEDDINGS])
        return sum(max(0.0, self._importance.get(name, 0.0)) for name in names)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluations": self._evaluations, "importance": self._importance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._evaluations = [(step, value) for step, value in state["evaluations"]]
        self._importance = dict(state["importance"])


def evenly_spaced(evaluations: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the last evaluation and, going back, those at least half of the largest distance before the next one.

    Args:
        evaluations: Steps and values, in order.

    Example:
        >>> evenly_spaced([(30, 0.1), (60, 0.2), (62, 0.3), (90, 0.4)])
        [(30, 0.1), (62, 0.3), (90, 0.4)]
    """
    least = max((later - earlier for (earlier, _), (later, _) in itertools.pairwise(evaluations)), default=0) / 2
    spaced: list[tuple[int, float]] = []
    for step, value in reversed(evaluations):
        if not spaced or spaced[-1][0] - step >= least:
            spaced.append((step, value))
    return spaced[::-1]


def predicted_gains(values: list[float], count: int) -> list[float]:
    """Return the predicted gain over the last value after each of the next `count` evaluations.

    Args:
        values: A metric at equal distances, at least three, where higher is better.
        count: Number of evaluations to predict.

    Example:
        >>> predicted_gains([0.0, 4.0, 6.0, 7.0], 2)
        [0.5, 0.75]
    """
    gains = [later - earlier for earlier, later in itertools.pairwise(values)]
    products = sum(earlier * later for earlier, later in itertools.pairwise(gains))
    squares = sum(gain * gain for gain in gains[:-1])
    factor = min(1.0, max(0.0, products / squares)) if squares else 0.0
    steps = itertools.accumulate(range(count), lambda gain, _: gain * factor, initial=gains[-1])
    return list(itertools.accumulate(itertools.islice(steps, 1, None)))


def energy(costs: StepCosts, depth: int, steps: int, *, moved: bool) -> float:
    """Return the predicted cost of `steps` steps at a depth, in steps of full fine-tuning.

    Args:
        costs: The costs of a step.
        depth: Number of frozen blocks.
        steps: Number of steps.
        moved: Whether these blocks freeze now, so that the first pass fills the cache.
    """
    if not costs.cached or depth == 0:
        return steps * costs.run[depth]
    filling = min(steps, costs.examples_pass) if moved else 0.0
    return filling * costs.run[depth] * (1 + costs.filling) + (steps - filling) * costs.skipped[depth]
