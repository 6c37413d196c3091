"""Wrappers around any policy: a floor and a ceiling of depth, patience, a delayed start, and a sieve of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from .arguments import check_depth, check_flag, check_number, depth_of
from .base import AdaptivePolicy, Policy, SideShape, SieveRule, arguments_of, spec_of
from .decision import Decision, DecisionPoints, Signals

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@dataclass
class Wrapper(AdaptivePolicy):
    """Base class of wrappers, which forward everything to the wrapped policy.

    In specs, the name follows a plus sign: `autofreeze+ceiling:6`. A subclass may have more arguments than `value`.

    Args:
        policy: The wrapped policy.
        value: The first argument of the wrapper.
    """

    policy: Policy
    value: Any

    @property
    def needs(self) -> frozenset[str]:
        return self.policy.needs

    @property
    def watched_metric(self) -> str | None:
        return self.policy.watched_metric

    @property
    def keep_optimizer_state(self) -> bool:
        return self.policy.keep_optimizer_state

    @property
    def reason(self) -> str:
        return self.policy.reason

    @property
    def is_static(self) -> bool:
        return self.policy.is_static

    @property
    def side(self) -> SideShape | None:
        return self.policy.side

    @property
    def sieve(self) -> SieveRule | None:
        return self.policy.sieve

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return self.policy.decision_points(total_steps, steps_per_epoch)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return self.policy.initial_mask(stack)

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        return self.policy.initial_learning_rates(stack)

    def update(self, signals: Signals) -> Decision | None:
        return self.policy.update(signals) if isinstance(self.policy, AdaptivePolicy) else None

    def reset(self) -> None:
        super().reset()
        self.policy.reset()

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])

    def __str__(self) -> str:
        return f"{self.policy}+{spec_of(self, arguments_of(type(self))[1:])}"


@dataclass
class Floor(Wrapper):
    """Freezes at least the embeddings and the first blocks: `+floor:K`.

    Args:
        policy: The wrapped policy.
        value: Number of blocks (int), or a fraction of the depth (float).

    Raises:
        RequestError: When `value` is out of range.
    """

    name: ClassVar[str] = "floor"

    def __post_init__(self) -> None:
        check_depth(self.name, self.value)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        depth_of(self.name, self.value, stack.depth)
        return self._raised(self.policy.initial_mask(stack))

    def update(self, signals: Signals) -> Decision | None:
        decision = super().update(signals)
        return decision and _with_mask(decision, self._raised(decision.mask), signals)

    def _raised(self, mask: FreezeMask) -> FreezeMask:
        k = depth_of(self.name, self.value, mask.depth)
        return mask | FreezeMask.first(mask.depth, k) if k else mask


@dataclass
class Ceiling(Wrapper):
    """Freezes nothing above the first blocks: `+ceiling:K`.

    Args:
        policy: The wrapped policy.
        value: Number of blocks (int), or a fraction of the depth (float).

    Raises:
        RequestError: When `value` is out of range.
    """

    name: ClassVar[str] = "ceiling"

    def __post_init__(self) -> None:
        check_depth(self.name, self.value)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        depth_of(self.name, self.value, stack.depth)
        return self._lowered(self.policy.initial_mask(stack))

    def update(self, signals: Signals) -> Decision | None:
        decision = super().update(signals)
        return decision and _with_mask(decision, self._lowered(decision.mask), signals)

    def _lowered(self, mask: FreezeMask) -> FreezeMask:
        k = depth_of(self.name, self.value, mask.depth)
        above = {HEAD, *(block_name(i) for i in range(k, mask.depth))} | ({EMBEDDINGS} if k == 0 else set())
        return FreezeMask(
            mask.depth,
            embeddings=mask.embeddings and k > 0,
            blocks=(i for i in mask.blocks if i < k),
            parts=(part for part in mask.parts if part[0] not in above),
            slices=(part for part in mask.slices if part.unit not in above),
        )


@dataclass
class Patience(Wrapper):
    """Delays a change until the policy has decided on one at several decision points in a row: `+patience:N`.

    Args:
        policy: The wrapped policy.
        value: Number of earlier decision points in a row that a change needs.

    Raises:
        RequestError: When `value` is no whole number of 0 or more.
    """

    name: ClassVar[str] = "patience"
    _in_a_row: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "the number of decision points", self.value, 0, whole=True)

    def update(self, signals: Signals) -> Decision | None:
        decision = super().update(signals)
        if decision is None or decision.mask == signals.mask:
            self._in_a_row = 0
            return decision
        self._in_a_row += 1
        if self._in_a_row > self.value:
            self._in_a_row = 0
            return decision
        reason = decision.reason and f"{decision.reason}; decision {self._in_a_row} of {self.value + 1} in a row"
        return replace(decision, mask=signals.mask, reason=reason)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._in_a_row = state["in_a_row"]


@dataclass
class After(Wrapper):
    """Freezes nothing, and makes no decision, before a fraction of the run is over: `+after:F`.

    Then the initial mask and learning rates of the policy hold. Around a static policy: full fine-tuning first, then
    its mask.

    Args:
        policy: The wrapped policy.
        value: Fraction of the run, from 0 to 1.

    Raises:
        RequestError: When `value` is out of range.
    """

    name: ClassVar[str] = "after"

    def __post_init__(self) -> None:
        check_number(self.name, "the fraction of the run", self.value, 0, 1)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        mask = self.policy.initial_mask(stack)  # raises now when the policy does not fit
        return FreezeMask(stack.depth) if self.value > 0 else mask

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        return {} if self.value > 0 else super().initial_learning_rates(stack)

    @property
    def is_static(self) -> bool:
        return self.value == 0 and self.policy.is_static

    @property
    def reason(self) -> str:
        return f"waits for {self.value:.0%} of the run" if self.value > 0 else self.policy.reason

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        inner = self.policy.decision_points(total_steps, steps_per_epoch)
        begin = self._begin(total_steps)
        steps = {step for step in range(max(1, begin + 1), total_steps) if step in inner.steps}
        return DecisionPoints(frozenset(steps | ({begin} if 0 < begin < total_steps else set())), inner.evaluations)

    def update(self, signals: Signals) -> Decision | None:
        begin = self._begin(signals.total_steps)
        if signals.metrics is None and signals.step == begin > 0:
            assert signals.stack is not None
            rates = self.policy.initial_learning_rates(signals.stack)
            return Decision(self.policy.initial_mask(signals.stack), self.policy.reason, learning_rates=rates)
        return super().update(signals) if signals.step >= begin else None

    def _begin(self, total_steps: int) -> int:
        return math.ceil(float(self.value) * total_steps)


@dataclass
class Sieve(Wrapper):
    """Leaves examples that are learnt out of an epoch: `+sieve:R`, `+sieve:R,until=1`.

    At the start of each epoch an example is learnt if its last loss is below the mean of all. A share R of these,
    drawn at random, is left out of the epoch. The others of them count more, so that the expected sum of the gradients
    over an epoch is that of all examples. The learning-rate schedule advances faster, and the run ends with it after
    the planned number of epochs. The first epoch has no losses yet and uses all examples, as do the last ones.

    It works in a Trainer, in one process, for models whose loss is the mean cross-entropy of their labels.

    References: Qin et al. 2024, "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning" (ICLR, arXiv
    2303.04947), and its code, in which the weight is 1 / (1 - R) although the number of examples left out is rounded.
    Here it is the number of learnt examples over the number of those kept, which is exact. Yuan et al. 2022, "Layer
    Freezing & Data Sieving: Missing Pieces of a Generic Framework for Sparse Training" (NeurIPS, arXiv 2209.11204),
    combines freezing with a training set of which a part is set aside for a while.

    Args:
        policy: The wrapped policy.
        value: Share R of the learnt examples to leave out, from 0 to 0.9.
        until: Share of the epochs after which all examples are used, from 0 to 1.
        blind: Take as many examples for learnt at random. This is the control.

    Raises:
        RequestError: When an argument is out of range, or the policy has a sieve already.
    """

    name: ClassVar[str] = "sieve"
    until: float = 0.875
    blind: bool = False

    def __post_init__(self) -> None:
        check_number(self.name, "the share to leave out", self.value, 0, 0.9)
        check_number(self.name, "until", self.until, 0, 1)
        check_flag(self.name, "blind", self.blind)
        if self.policy.sieve is not None:
            raise RequestError(f"sieve: {self.policy} has a sieve already: give one.")

    @property
    def sieve(self) -> SieveRule:
        return SieveRule(float(self.value), float(self.until), self.blind)


def _with_mask(decision: Decision, mask: FreezeMask, signals: Signals) -> Decision:
    """Replace the mask of a decision. A change that the wrapper prevents is not recorded in the timeline."""
    prevented = decision.mask != signals.mask and mask == signals.mask
    return replace(decision, mask=mask, reason="" if prevented else decision.reason)


WRAPPERS: tuple[type[Wrapper], ...] = (Floor, Ceiling, Patience, After, Sieve)
