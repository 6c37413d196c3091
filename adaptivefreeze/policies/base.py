"""The interface of a policy: which units of a model are frozen, decided from signals alone."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from ..errors import RequestError
from ..model.mask import FreezeMask
from .decision import Decision, DecisionPoints, Signals

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


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


class SideShape(NamedTuple):
    """The shape of a side network, as `add_side_network` takes it."""

    width: int
    layers: int
    every: int
    dropout: float


class SieveRule(NamedTuple):
    """Which examples of the training data an epoch leaves out.

    Attributes:
        share: Share of the learnt examples that an epoch leaves out, from 0 to 0.9.
        until: Share of the epochs, counted from the first, that leave examples out. The later ones use all of them.
        blind: Whether as many examples are taken for learnt at random: the control.
    """

    share: float
    until: float
    blind: bool


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
        if hasattr(cls, "update") and not any(base.__name__ == "AdaptivePolicy" for base in cls.__mro__):
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
    def watched_metric(self) -> str | None:
        """Name of the metric that the policy takes from evaluations, so that it is checked before training."""
        return None

    @property
    def keep_optimizer_state(self) -> bool:
        """Whether a block that unfreezes continues with the optimizer state that it had when it was frozen."""
        return False

    @property
    def side(self) -> SideShape | None:
        """The side network that the policy trains, if any."""
        return None

    @property
    def sieve(self) -> SieveRule | None:
        """Which examples of the training data are left out, if any are."""
        return None

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        """Return when `AdaptivePolicy.update` is to be called, as a pure function of the arguments.

        Args:
            total_steps: Number of optimizer steps of the run.
            steps_per_epoch: Optimizer steps per epoch.
        """
        return DecisionPoints()

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        """Return the factors on the learning rate before the first decision, by unit name; 1 for other units."""
        return {}

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
        return spec_of(self, arguments_of(type(self)))


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
    """Return whether `policy` freezes nothing in the whole run, changes no learning rate and leaves out no example.

    This is a property of what it does, not of its name: `nothing`, `bottom-up:0`, `bottom-up:0.0` and `top-down:0`
    are all full fine-tuning. An adaptive policy is not, even when it ends up freezing nothing.

    Args:
        policy: The policy.
        model: The units of the model, or only its number of blocks. With the number of blocks, a policy that selects
            parameters by name is taken to freeze some.
    """
    if not policy.is_static or (policy.sieve is not None and policy.sieve.share > 0):
        return False
    stack = _without_parameters(model) if isinstance(model, int) else model
    try:
        mask = policy.initial_mask(stack)
    except RequestError:  # the policy does not fit the model, or selects parameters by name
        return False
    return mask == FreezeMask(mask.depth) and not policy.initial_learning_rates(stack)


def spec_of(policy: Policy, arguments: Sequence[dataclasses.Field[Any]]) -> str:
    """Return the name of a policy and those of its `arguments` that a spec has to give."""
    words = []
    for index, field in enumerate(arguments):
        value = getattr(policy, field.name)
        if index == 0 and field.default is dataclasses.MISSING:
            words.append(_word(value))
        elif value != field.default:
            words.append(f"{field.name}={_word(value)}")
    name = getattr(policy, "name", type(policy).__name__)
    return f"{name}:{','.join(words)}" if words else name


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
