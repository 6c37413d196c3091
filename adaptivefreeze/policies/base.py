"""Policy: what decides which units are frozen. Pure: a stack and signals in, a mask out."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import FreezeMask

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@dataclass(frozen=True)
class Norms:
    """L1 norm (sum of absolute values) and L2 norm of all values of a unit taken as one vector."""

    l1: float
    l2: float


@dataclass(frozen=True)
class StepCosts:
    """Predicted time of a step / time of a step of full fine-tuning, at each depth: index k for `FreezeMask.first`.

    Index 0: nothing frozen. `run`: the frozen prefix is run. `skipped`: it comes from the cache. `examples_pass` is
    how many steps go through the training data once, which is how long a cache takes to fill; `filling` is what that
    adds to each of them, as a share of it. `taken`: time of the run's steps so far, by the clock, in full steps; None
    where nobody looks at the clock.
    """

    run: tuple[float, ...]
    skipped: tuple[float, ...]
    cached: bool
    examples_pass: float
    filling: float = 0.0
    taken: float | None = None


@dataclass(frozen=True)
class Signals:
    """What is known at the moment a policy is asked: after `step` optimizer steps, with `mask` in force.

    The first six are always there; of the others a policy gets those whose names it gave in `needs`, None else.
    Each is exactly defined in `adaptivefreeze.signals`; the keys are names of units unless said otherwise. `since the
    last moment` means since this policy was last asked at one of its steps, or since the start of training.

    - `gradients`: norms of the accumulated signed gradient since the last moment ("gradients"; blocks alone, which
      costs less, under "block gradients").
    - `gradient_changes`: a parameter's name -> mean absolute difference between the gradients of the last two steps.
    - `weights`: norms of the weights. `weight_changes`: norms of their difference since the last moment.
    - `weight_samples`: a few values of the unit, always the same: how far each has moved since training began, as a
      share of their root mean square then.
    - `importance`: −Σ Δw·g over the last step: what the unit's update is worth, in loss, to first order.
    - `similarities`: a trained block's name -> the rows of the similarity matrix of its outputs on the probe batch.
    - `metrics`: what the evaluation that has just ended reported; None at a moment that is no evaluation.
    - `costs`: what each depth costs ("costs": by the shapes alone; "timed costs": by the clock as well).

    `stack`: the units of the model in training. `ahead`: how many steps the learning-rate schedule is ahead of `step`,
    by the pace of earlier decisions.
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


@dataclass(frozen=True)
class Decision:
    """What holds from now on, and why.

    `learning_rates`: unit -> factor on the learning rate that the scheduler gives, 1 where none is named; None leaves
    the factors as they are. `stop` ends the training. `pace`: how many steps of the learning-rate schedule each step
    takes, 1 or more; the training ends where the schedule does; None leaves the pace as it is. An empty `reason` is
    not worth a line in the timeline: only a change of mask is noted then.
    """

    mask: FreezeMask
    reason: str = ""
    learning_rates: Mapping[str, float] | None = None
    stop: bool = False
    pace: float | None = None


@dataclass(frozen=True)
class DecisionPoints:
    """When a policy wants to be asked: after which numbers of optimizer steps, and whether after each evaluation."""

    steps: Container[int] = frozenset()
    evaluations: bool = False


class Policy(ABC):
    """Decides what is frozen.

    A policy is a dataclass: its fields are its arguments, checked in `__post_init__` with a `RequestError`, and
    `str(policy)` is the spec that `parse_policy` reads back. `name` is its name in specs.
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # What only AdaptivePolicy brings along; the class itself does not exist yet when it is checked here.
        if hasattr(cls, "update") and not hasattr(cls, "initial_learning_rates"):
            raise TypeError(f"{cls.__name__} has an `update` that nobody would call: derive it from AdaptivePolicy.")

    @abstractmethod
    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        """The mask from the first step on, as a pure function of the arguments and the model.

        Raises:
            RequestError: When the arguments do not fit the model.
        """

    def reset(self) -> None:
        """Forget an earlier run: fields that are not arguments (`init=False`) get their defaults back."""
        if not dataclasses.is_dataclass(self):
            return
        for field in dataclasses.fields(self):
            if field.init:
                continue
            if field.default_factory is not dataclasses.MISSING:
                setattr(self, field.name, field.default_factory())
            elif field.default is not dataclasses.MISSING:
                setattr(self, field.name, field.default)

    @property
    def reason(self) -> str:
        """Why the first mask is what it is, for the timeline."""
        return "static"

    @property
    def needs(self) -> frozenset[str]:
        """Names of the signals to be measured: the fields of `Signals` that `adaptivefreeze.signals` lists."""
        return frozenset()

    @property
    def keep_optimizer_state(self) -> bool:
        """Whether a block that is thawed gets the optimizer moments back that it had when it was frozen."""
        return False

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        """When to ask `update`, in a run of `total_steps`. A pure function, called after `start`."""
        return DecisionPoints()

    def state_dict(self) -> dict[str, Any]:
        """What has to outlive a checkpoint, as plain JSON. Nothing, for a mask that never changes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises `ValueError` for a state that is not this policy's."""
        if state:
            raise ValueError(f"{self} keeps no state, but {sorted(state)} was given")

    def __str__(self) -> str:
        """The spec in full: the first argument by position, the others by name where they differ from the default."""
        words = []
        for index, field in enumerate(f for f in dataclasses.fields(self) if f.init):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if index == 0 and field.default is dataclasses.MISSING:
                words.append(_word(value))
            elif value != field.default:
                words.append(f"{field.name}={_word(value)}")
        return f"{self.name}:{','.join(words)}" if words else self.name


class AdaptivePolicy(Policy):
    """A policy that is asked while the training runs.

    It takes the mask that holds from the signals and never remembers it, so that it composes with wrappers. What it
    does keep, as fields with `init=False`, is cleared by `reset` and goes through `state_dict`.
    """

    @abstractmethod
    def update(self, signals: Signals) -> Decision | None:
        """What to do now; None for nothing. Called at the moments asked for, in order."""

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        """Unit -> factor on its learning rate in the first step, before the policy is asked; 1 where none is named."""
        return {}

    @property
    def reason(self) -> str:
        return "start"


class Schedule(AdaptivePolicy):
    """A policy whose mask is a pure function of the step: it keeps no state."""

    @abstractmethod
    def at(self, step: int, depth: int, total_steps: int, steps_per_epoch: float) -> FreezeMask:
        """The mask from step number `step` on, 0 at the start, in a model of `depth` blocks."""

    @abstractmethod
    def why(self, signals: Signals) -> str:
        """The reason for a change at this moment."""

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, total_steps))

    def update(self, signals: Signals) -> Decision | None:
        mask = self.at(signals.step, signals.mask.depth, signals.total_steps, signals.steps_per_epoch)
        return None if mask == signals.mask else Decision(mask, self.why(signals))


def intervals(per_epoch: float, total_steps: int, steps_per_epoch: float) -> list[int]:
    """The ends of equal intervals, `per_epoch` an epoch, in steps, up to `total_steps` (not included)."""
    count = max(1, round(per_epoch * total_steps / steps_per_epoch))
    ends = {math.floor(i * total_steps / count + 0.5) for i in range(1, count)}
    return sorted(end for end in ends if 0 < end < total_steps)


def check_number(
    policy: str,
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    whole: bool = False,
    open_low: bool = False,
) -> None:
    """Raises `RequestError` unless `value` is a number from `low` to `high` (`open_low`: above `low`)."""
    wrong = isinstance(value, bool) or not isinstance(value, int if whole else (int, float))
    if wrong or not (low < value if open_low else low <= value) or not value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        begin = f"above {low}" if open_low else f"of {low} or more" if high == math.inf else f"from {low}"
        end = "" if high == math.inf else f" up to {high}" if open_low else f" to {high}"
        raise RequestError(f"{policy}: {name} must be {kind} {begin}{end}, not {value!r}.")


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def depth_of(policy: str, k: float, blocks: int) -> int:
    """`k` blocks, or the fraction `k` of `blocks`, rounded half up. Raises `RequestError` outside 0 … `blocks`."""
    if isinstance(k, float):
        return math.floor(k * blocks + 0.5)
    if k > blocks:
        raise RequestError(f"{policy}: depth {k} is out of range, this model has {blocks} blocks; give 0 to {blocks}.")
    return k


def check_depth(policy: str, k: object) -> None:
    """Raises `RequestError` unless `k` is a number of blocks or a fraction from 0.0 to 1.0."""
    if isinstance(k, bool) or not isinstance(k, (int, float)) or k < 0 or (isinstance(k, float) and k > 1):
        raise RequestError(
            f"{policy}: depth must be a whole number of blocks (0 or more) or a fraction from 0.0 to 1.0, not {k!r}."
        )
