"""Wrappers that compose with any policy: a floor and a ceiling of depth, patience, start after a fraction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..model.mask import FreezeMask, block_name
from .arguments import check_depth, check_number, depth_of
from .base import AdaptivePolicy, Decision, DecisionPoints, Policy, Signals

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@dataclass
class Wrapper(AdaptivePolicy):
    """Passes everything on to `policy`. `name` follows a plus sign in specs: `autofreeze+ceiling:6`."""

    policy: Policy
    value: Any

    @property
    def needs(self) -> frozenset[str]:
        return self.policy.needs

    @property
    def keep_optimizer_state(self) -> bool:
        return self.policy.keep_optimizer_state

    @property
    def reason(self) -> str:
        return self.policy.reason

    @property
    def is_static(self) -> bool:
        return self.policy.is_static

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return self.policy.decision_points(total_steps, steps_per_epoch)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return self.policy.initial_mask(stack)

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        return self.policy.initial_learning_rates(stack) if isinstance(self.policy, AdaptivePolicy) else {}

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
    """`+floor:K`: the embeddings and the first K blocks are frozen in any case; K may be a fraction of the depth."""

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
    """`+ceiling:K`: nothing above the first K blocks is ever frozen; K may be a fraction of the depth."""

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
        above = {block_name(i) for i in range(k, mask.depth)}
        return FreezeMask(
            mask.depth,
            embeddings=mask.embeddings and k > 0,
            blocks=(i for i in mask.blocks if i < k),
            parts=(part for part in mask.parts if part[0] not in above),
        )


@dataclass
class Patience(Wrapper):
    """`+patience:N`: a change holds when the policy has asked for one at N moments in a row before."""

    name: ClassVar[str] = "patience"
    _asked: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "the number of moments", self.value, 0, whole=True)

    def update(self, signals: Signals) -> Decision | None:
        decision = super().update(signals)
        if decision is None or decision.mask == signals.mask:
            self._asked = 0
            return decision
        self._asked += 1
        if self._asked > self.value:
            self._asked = 0
            return decision
        reason = decision.reason and f"{decision.reason}; asked {self._asked} times, waits for {self.value + 1}"
        return replace(decision, mask=signals.mask, reason=reason)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "asked": self._asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._asked = state["asked"]


@dataclass
class After(Wrapper):
    """`+after:F`: nothing is frozen, and the policy is not asked, before the share F of the run's steps is done.

    Then what the policy starts with holds. With a static policy: full fine-tuning, and then its mask.
    """

    name: ClassVar[str] = "after"

    def __post_init__(self) -> None:
        check_number(self.name, "the share of the run", self.value, 0, 1)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        mask = self.policy.initial_mask(stack)  # also where it is not used yet: the arguments must fit the model now
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
            return Decision(self.policy.initial_mask(signals.stack), self.policy.reason)
        return super().update(signals) if signals.step >= begin else None

    def _begin(self, total_steps: int) -> int:
        return math.ceil(float(self.value) * total_steps)


def _with_mask(decision: Decision, mask: FreezeMask, signals: Signals) -> Decision:
    """`decision` with `mask` instead. A change that was wanted and comes to nothing is worth no line of its own."""
    prevented = decision.mask != signals.mask and mask == signals.mask
    return replace(decision, mask=mask, reason="" if prevented else decision.reason)


WRAPPERS: tuple[type[Wrapper], ...] = (Floor, Ceiling, Patience, After)
