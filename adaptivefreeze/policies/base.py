"""The interface of a policy: which units of a model are frozen, decided from signals alone."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..errors import RequestError
from ..model.mask import FreezeMask

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


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


class Trial(Protocol):
    """The part of `optuna.trial.Trial` that `Policy.suggest` uses."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest an integer from `low` to `high`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a number from `low` to `high`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of `choices`."""


class Policy(ABC):
    """Base class of policies. A direct subclass is static: its initial mask holds for the whole run.

    A policy is a dataclass. Its fields are its arguments; `__post_init__` checks them and raises `RequestError`. A
    policy never touches a model: it maps a `BlockStack` to a mask.

    A policy works wherever a built-in one does as soon as its class exists. `register_policy` also gives it a spec, so
    that it can be named on the command line.

    Example:
        >>> @dataclass(frozen=True)
        ... class EmbeddingsOnly(Policy):
        ...     name = "embeddings-only"
        ...
        ...     def initial_mask(self, stack):
        ...         return FreezeMask(stack.depth, embeddings=True)
        >>> str(EmbeddingsOnly())
        'embeddings-only'
    """

    name: ClassVar[str]
    """Name in specs. A class that is never registered may leave it out."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # `initial_learning_rates` exists on AdaptivePolicy alone, which cannot be named here: it is not defined yet.
        if hasattr(cls, "update") and not hasattr(cls, "initial_learning_rates"):
            raise TypeError(f"{cls.__name__} has an `update` that is never called: derive it from AdaptivePolicy.")

    @abstractmethod
    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        """Return the mask that holds from the first step on.

        A pure function of the policy's arguments and the model: it changes no state of the policy.

        Args:
            stack: The units of the model.

        Raises:
            RequestError: When the arguments do not fit the model.
        """

    def reset(self) -> None:
        """Clear the state of an earlier run; called before each run.

        Every field that is not an argument (`init=False`) is set to its default.
        """
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
        """The reason that the timeline gives for the initial mask."""
        return "static"

    @property
    def is_static(self) -> bool:
        """Whether the initial mask holds for the whole run."""
        return True

    @property
    def needs(self) -> frozenset[str]:
        """Names of the signals to measure; `adaptivefreeze.signals` lists them."""
        return frozenset()

    @property
    def keep_optimizer_state(self) -> bool:
        """Whether a block that unfreezes continues with the optimizer state that it had when it was frozen."""
        return False

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        """Return when `AdaptivePolicy.update` is to be called, as a pure function of the arguments.

        Args:
            total_steps: Number of optimizer steps of the run.
            steps_per_epoch: Optimizer steps per epoch.
        """
        return DecisionPoints()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as plain JSON. A static policy has none."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned.

        Raises:
            ValueError: When the policy has no state, but `state` is not empty.
        """
        if state:
            raise ValueError(f"{self} has no state, but was given {sorted(state)}")

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy | None:
        """Sample a policy of this class for a hyperparameter search.

        Args:
            trial: An Optuna trial, or an object with the same `suggest_int`, `suggest_float` and
                `suggest_categorical`. A parameter's name begins with the policy's name, unless policies share it.
            depth: Number of blocks of the model.

        Returns:
            The sampled policy, or None when this class takes no part in sampled searches.
        """
        return None

    def __str__(self) -> str:
        """Return the spec: a required first argument by position, other arguments by name where not the default."""
        words = []
        for index, field in enumerate(f for f in arguments_of(type(self))):
            value = getattr(self, field.name)
            if index == 0 and field.default is dataclasses.MISSING:
                words.append(_word(value))
            elif value != field.default:
                words.append(f"{field.name}={_word(value)}")
        name = getattr(self, "name", type(self).__name__)
        return f"{name}:{','.join(words)}" if words else name


class AdaptivePolicy(Policy):
    """Base class of policies that change the mask during training.

    The mask in force is in the signals; a policy does not store it, so that wrappers compose. State that it does need
    is stored in fields with `init=False`, which `reset` clears, and passes through `state_dict` and `load_state_dict`.
    """

    @abstractmethod
    def update(self, signals: Signals) -> Decision | None:
        """Decide what holds from now on. Called at the decision points, in order.

        Args:
            signals: What is known at this decision point.

        Returns:
            The decision, or None to change nothing.
        """

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        """Return the factors on the learning rate before the first decision, by unit name; 1 for other units."""
        return {}

    @property
    def reason(self) -> str:
        return "start"

    @property
    def is_static(self) -> bool:
        return False


class Schedule(AdaptivePolicy):
    """Base class of adaptive policies whose mask is a pure function of the step. They have no state."""

    @abstractmethod
    def at(self, step: int, depth: int, total_steps: int, steps_per_epoch: float) -> FreezeMask:
        """Return the mask from step `step` on, 0 being the first step, for a model of `depth` blocks."""

    @abstractmethod
    def why(self, signals: Signals) -> str:
        """Return the reason for a change at this decision point."""

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, total_steps))

    def update(self, signals: Signals) -> Decision | None:
        mask = self.at(signals.step, signals.mask.depth, signals.total_steps, signals.steps_per_epoch)
        return None if mask == signals.mask else Decision(mask, self.why(signals))


def is_full_fine_tuning(policy: Policy, model: BlockStack | int) -> bool:
    """Return whether `policy` freezes nothing during the whole run.

    This is a property of the initial mask, not of the name: `nothing`, `bottom-up:0`, `bottom-up:0.0` and `top-down:0`
    are all full fine-tuning. An adaptive policy is not, even when it ends up freezing nothing.

    Args:
        policy: The policy.
        model: The units of the model, or only its number of blocks. With the number of blocks, a policy that selects
            parameters by name is taken to freeze some.
    """
    if not policy.is_static:
        return False
    try:
        mask = policy.initial_mask(_without_parameters(model) if isinstance(model, int) else model)
    except RequestError:  # the policy does not fit the model, or selects parameters by name
        return False
    return mask == FreezeMask(mask.depth)


def arguments_of(cls: type[Policy]) -> list[dataclasses.Field[Any]]:
    """Return the dataclass fields that are arguments of `cls`."""
    described: Any = cls
    return [field for field in dataclasses.fields(described) if field.init] if dataclasses.is_dataclass(cls) else []


def _without_parameters(depth: int) -> BlockStack:
    from ..model.blocks import BlockStack, Unit
    from ..model.mask import EMBEDDINGS, HEAD, block_name

    names = (EMBEDDINGS, *(block_name(i) for i in range(depth)), HEAD)
    return BlockStack("", "", tuple(Unit(name, (), ()) for name in names), hidden_size=0)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
