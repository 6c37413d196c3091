"""What a policy receives and returns: signals, decisions, and when it decides."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.mask import FreezeMask

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

_CHECKED = (
    *("gradients", "gradient_changes", "weights", "weight_changes", "weight_samples"),
    *("importance", "similarities"),
)
"""The signals that `Signals.non_finite` checks."""


@dataclass(frozen=True)
class Norms:
    """Norms of all values of a unit, taken as one vector.

    Args:
        l1: Sum of absolute values.
        l2: Euclidean norm.
    """

    l1: float
    l2: float


@dataclass(frozen=True)
class StepCosts:
    """Predicted cost of a training step at each depth, relative to a step of full fine-tuning.

    Index k of `run` and `skipped` belongs to the mask with embeddings and k blocks frozen; index 0 to no frozen unit.

    Args:
        run: Cost when the frozen prefix is computed.
        skipped: Cost when the frozen prefix is read from the cache.
        cached: Whether the run has a prefix cache.
        examples_pass: Steps in one pass over the training data, which is how long it takes to fill the cache.
        filling: Overhead of a step that fills the cache, as a fraction of `run`.
        taken: Measured time of the steps so far, in steps of full fine-tuning; None when steps are not timed.
    """

    run: tuple[float, ...]
    skipped: tuple[float, ...]
    cached: bool
    examples_pass: float
    filling: float = 0.0
    taken: float | None = None


@dataclass(frozen=True)
class Signals:
    """What a policy knows at a decision point.

    `step` to `learning_rate`, `ahead` and `stack` are always set. Of the others, a policy receives those that it
    names in `Policy.needs`; the rest are None. `adaptivefreeze.signals` defines each one. Unless noted otherwise, keys
    are unit names, and an interval runs from this policy's previous decision point, or the start of training, to now.

    Args:
        step: Number of optimizer steps taken.
        total_steps: Number of optimizer steps of the run.
        steps_per_epoch: Optimizer steps per epoch.
        epoch: `step` in epochs.
        mask: The mask in force.
        learning_rate: Learning rate of the first parameter group.
        gradients: Norms of the signed gradient accumulated over the interval; for need "block gradients", of the
            blocks only, which costs less.
        gradient_changes: Mean absolute difference between the gradients of the last two steps, by parameter name.
        weights: Norms of the weights.
        weight_changes: Norms of the weights' change over the interval.
        weight_samples: Change since the start of training of a fixed sample of the unit's values, relative to the
            sample's root mean square at the start.
        importance: −Σ Δw·g over the last step: the decrease of the loss due to the unit's update, to first order.
        similarities: Rows of the similarity matrix of a trained block's outputs on the probe batch, by block name.
        metrics: Metrics of the evaluation that has just ended; None at a decision point between evaluations.
        costs: Cost of each depth: for need "costs", predicted from shapes; for "timed costs", also from measured times.
        ahead: Steps by which the learning-rate schedule is ahead of `step`, due to the `pace` of earlier decisions.
        stack: The units of the model.
    """

    step: int
    total_steps: int
    steps_per_epoch: float
    epoch: float
    mask: FreezeMask
    learning_rate: float
    gradients: Mapping[str, Norms] | None = None
    gradient_changes: Mapping[str, float] | None = None
    weights: Mapping[str, Norms] | None = None
    weight_changes: Mapping[str, Norms] | None = None
    weight_samples: Mapping[str, Sequence[float]] | None = None
    importance: Mapping[str, float] | None = None
    similarities: Mapping[str, Sequence[Sequence[float]]] | None = None
    metrics: Mapping[str, float] | None = None
    costs: StepCosts | None = None
    ahead: float = 0.0
    stack: BlockStack | None = None

    def non_finite(self) -> Decision | None:
        """Return the decision to keep the mask if a measured signal contains NaN or infinity, else None.

        A policy that returns it before it changes its state skips such a decision point, and continues with the next
        one. `metrics` are not checked: a policy uses one of them, and the others may be undefined.

        Example:
            ```python
            def update(self, signals):
                if undefined := signals.non_finite():
                    return undefined
                ...
            ```
        """
        names = [name for name in _CHECKED if not _is_finite(getattr(self, name))]
        if not names:
            return None
        return Decision(self.mask, f"{' and '.join(names).replace('_', ' ')} not finite: no change")


@dataclass(frozen=True)
class Decision:
    """What holds from the next step on, and why.

    Args:
        mask: The mask. It may equal the mask in force.
        reason: One line for the timeline. A decision that changes nothing is recorded only when it has a reason.
        learning_rates: Factor on the scheduled learning rate by unit name, 1 for units without an entry. None keeps
            the factors in force.
        stop: End the training.
        pace: Steps of the learning-rate schedule per optimizer step, 1 or more. The training ends where the schedule
            ends. None keeps the pace in force.
    """

    mask: FreezeMask
    reason: str = ""
    learning_rates: Mapping[str, float] | None = None
    stop: bool = False
    pace: float | None = None


@dataclass(frozen=True)
class DecisionPoints:
    """When `AdaptivePolicy.update` is called.

    Args:
        steps: Numbers of optimizer steps after which it is called.
        evaluations: Whether it is called after each evaluation.
    """

    steps: Container[int] = frozenset()
    evaluations: bool = False


def _is_finite(value: Any) -> bool:
    """Whether a signal, or a part of it, contains only finite numbers."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, Norms):
        return math.isfinite(value.l1) and math.isfinite(value.l2)
    return value is None or bool(np.isfinite(value).all())
