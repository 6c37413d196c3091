"""Egeria: freezes blocks from the front by their plasticity (Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..model.mask import FreezeMask, block_name
from .arguments import check_number, intervals
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

Matrix = Sequence[Sequence[float]]


@register_policy
@dataclass
class Egeria(AdaptivePolicy):
    """Freezes blocks from the front by their plasticity; unfreezes all when the learning rate has dropped.

    The plasticity of a block is the similarity-preserving loss ‖G − G_ref‖²_F / b² between its similarity matrix on a
    probe batch of b examples and that of a reference model. The reference is the model itself, at most `renew`
    decision points ago; since the probe batch is fixed, only its similarity matrices are stored.

    No block freezes during the bootstrap phase, which ends when the mean plasticity changes by no more than
    `bootstrap` (as a fraction) between two decision points. Then plasticity is averaged over `window` decision points
    and a line is fitted through the last `window` averages. The front block freezes when the slope, as a fraction of
    the block's largest averaged plasticity, stays within `tolerance`. The last block never freezes. All blocks
    unfreeze when the learning rate has fallen to a tenth of its value when the first block froze.

    Reference: Wang et al. 2023, "Egeria: Efficient DNN Training with Knowledge-Guided Layer Freezing"
    (arXiv 2201.06227).

    Args:
        tolerance: Largest slope at which the front block freezes, as a fraction per decision point.
        window: Number of decision points in a moving average, and of averages in the fitted line; 2 or more.
        intervals: Decision points per epoch.
        renew: Decision points after which the reference is renewed.
        bootstrap: Relative change of the mean plasticity at which the bootstrap phase ends.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "egeria"
    tolerance: float = 0.05
    window: int = 3
    intervals: float = 10
    renew: int = 10
    bootstrap: float = 0.5
    _reference: dict[str, Matrix] = field(default_factory=dict, init=False, repr=False, compare=False)
    _history: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _largest: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _age: int = field(default=0, init=False, repr=False, compare=False)
    _mean: float | None = field(default=None, init=False, repr=False, compare=False)
    _ready: bool = field(default=False, init=False, repr=False, compare=False)
    _rate: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "tolerance", self.tolerance, 0)
        check_number(self.name, "window", self.window, 2, whole=True)
        check_number(self.name, "intervals", self.intervals, 0, open_low=True)
        check_number(self.name, "renew", self.renew, 1, whole=True)
        check_number(self.name, "bootstrap", self.bootstrap, 0)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"similarities"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(frozenset(intervals(self.intervals, total_steps, steps_per_epoch)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.similarities is not None
        if undefined := signals.non_finite():
            return undefined
        mask, depth = signals.mask, signals.mask.depth
        plasticity = {
            name: plasticity_of(matrix, self._reference[name])
            for name, matrix in signals.similarities.items()
            if name in self._reference
        }
        self._note(plasticity)
        self._age += 1
        if not self._reference or self._age >= self.renew:
            self._reference, self._age = {name: [*map(list, m)] for name, m in signals.similarities.items()}, 0
        if mask.prefix and self._rate is not None and signals.learning_rate <= self._rate / 10:
            self._rate, self._history, self._largest = None, {}, {}
            return Decision(
                FreezeMask(depth),
                f"the learning rate fell tenfold, to {signals.learning_rate:.2g}: all blocks unfreeze",
            )
        front = mask.leading_blocks
        if not plasticity or not self._bootstrapped(plasticity) or front >= depth - 1:
            return None
        slope = self._slope(block_name(front))
        if slope is None or abs(slope) > self.tolerance:
            return None
        self._rate = signals.learning_rate if self._rate is None else self._rate
        reason = f"plasticity of block {front} has slope {slope:.2g}, tolerance {self.tolerance:g}"
        return Decision(FreezeMask.first(depth, front + 1), reason)

    def _note(self, plasticity: Mapping[str, float]) -> None:
        for name, value in plasticity.items():
            history = self._history.setdefault(name, [])
            history.append(value)
            del history[: -2 * self.window]

    def _bootstrapped(self, plasticity: Mapping[str, float]) -> bool:
        mean = sum(plasticity.values()) / len(plasticity)
        before, self._mean = self._mean, mean
        if before is not None and abs(mean - before) <= self.bootstrap * before:
            self._ready = True
        return self._ready

    def _slope(self, name: str) -> float | None:
        """Relative slope of the averaged plasticity per decision point; None when the history is too short."""
        history = self._history.get(name, [])
        if len(history) < 2 * self.window - 1:
            return None
        averages = np.lib.stride_tricks.sliding_window_view(history, self.window).mean(axis=1)[-self.window :]
        self._largest[name] = largest = max(self._largest.get(name, 0.0), float(averages.max()))
        if largest == 0:
            return 0.0
        places = np.arange(len(averages)) - (len(averages) - 1) / 2
        return float((places * (averages - averages.mean())).sum() / (places**2).sum() / largest)

    def state_dict(self) -> dict[str, Any]:
        return {
            "reference": self._reference,
            "history": self._history,
            "largest": self._largest,
            "age": self._age,
            "mean": self._mean,
            "ready": self._ready,
            "rate": self._rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reference, self._largest = dict(state["reference"]), dict(state["largest"])
        self._history = {name: list(values) for name, values in state["history"].items()}
        self._age, self._mean, self._ready, self._rate = state["age"], state["mean"], state["ready"], state["rate"]


def plasticity_of(matrix: Matrix, reference: Matrix) -> float:
    """Return ‖matrix − reference‖²_F / b² of two similarity matrices, (b, b)."""
    return float(np.square(np.subtract(matrix, reference)).sum()) / len(matrix) ** 2
