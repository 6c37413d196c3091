"""Wrappers around any policy: a floor and a ceiling of depth, patience, and a delayed start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from .arguments import check_depth, check_number, depth_of
from .base import AdaptivePolicy, Policy, SideShape
from .decision import Decision, DecisionPoints, Signals

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@dataclass
class Wrapper(AdaptivePolicy):
    """Base class of wrappers, which forward everything to the wrapped policy.

    In specs, the name follows a plus sign: `autofreeze+ceiling:6`.

    Args:
        policy: The wrapped policy.
        value: The argument of the wrapper.
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
        return f"{self.policy}+{self.name}:{self.value}"


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


def _with_mask(decision: Decision, mask: FreezeMask, signals: Signals) -> Decision:
    """Replace the mask of a decision. A change that the wrapper prevents is not recorded in the timeline."""
    prevented = decision.mask != signals.mask and mask == signals.mask
    return replace(decision, mask=mask, reason="" if prevented else decision.reason)


WRAPPERS: tuple[type[Wrapper], ...] = (Floor, Ceiling, Patience, After)
