"""GradES: freezes a matrix when its gradient stops changing, and ends the run when all are frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..model.mask import FreezeMask, block_name
from .arguments import check_number
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack, Unit


@register_policy
@dataclass
class GradES(AdaptivePolicy):
    """Freezes each weight matrix of the blocks once its gradient changes little between steps.

    From the fraction `alpha` of the run on, every `every` steps, a matrix freezes for the rest of the run when its mean
    absolute gradient change is below `tau` times the change at the first decision point. In the paper, `tau` is an
    absolute number that has to be found for each model. A block whose matrices are all frozen freezes as a whole, with
    biases and norms; the embeddings freeze with block 0.

    Reference: "GradES: Significantly Faster Training in Transformers with Gradient-Based Early Stopping"
    (arXiv 2509.01842).

    Args:
        tau: Fraction of the first gradient change below which a matrix freezes.
        alpha: Fraction of the run before the first decision point.
        every: Steps between decision points.
        stop: End the training when all blocks are frozen.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "grades"
    tau: float = 0.5
    alpha: float = 0.3
    every: int = 10
    stop: bool = True
    _first: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "tau", self.tau, 0)
        check_number(self.name, "alpha", self.alpha, 0, 1)
        check_number(self.name, "every", self.every, 1, whole=True)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"gradient_changes"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        begin = max(2, round(self.alpha * total_steps))  # a change needs two steps
        return DecisionPoints(range(begin, total_steps, self.every))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.gradient_changes is not None
        assert signals.stack is not None
        if undefined := signals.non_finite():
            return undefined
        matrices_of = {unit.name: _matrices(unit) for unit in signals.stack.blocks}
        depth, mask = signals.mask.depth, signals.mask
        quiet = []
        for name, change in signals.gradient_changes.items():
            first = self._first.setdefault(name, change)
            if change < self.tau * first:
                quiet.append(name)
        found = {
            (unit, pattern)
            for unit, matrices in matrices_of.items()
            for name, pattern in matrices.items()
            if name in quiet
        }
        parts = set(mask.parts) | found
        whole = {
            i
            for i in range(depth)
            if (matrices := matrices_of[block_name(i)])
            and {(block_name(i), pattern) for pattern in matrices.values()} <= parts
        }
        blocks = set(mask.blocks) | whole
        new = FreezeMask(depth, embeddings=mask.embeddings or 0 in blocks, blocks=blocks, head=mask.head, parts=parts)
        done = len(blocks) == depth
        if new == mask and not (done and self.stop):
            return None
        reason = f"{len(found)} more matrices changed less than {self.tau:g} of their first change"
        if done and self.stop:
            reason = f"{reason}; all blocks are frozen, training stops"
        return Decision(new, reason, stop=done and self.stop)

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first = dict(state["first"])


def _matrices(unit: Unit) -> dict[str, str]:
    """Name of each matrix of the unit that may train -> the pattern that finds it there."""
    return {p.name: _pattern(p.name, unit.modules) for p in unit.parameters if len(p.shape) > 1 and p.trainable}


def _pattern(name: str, modules: tuple[str, ...]) -> str:
    """A pattern that selects this parameter alone in its unit: its name from the end of the module's path on."""
    above = next((path for path in modules if name.startswith(f"{path}.")), "")
    # The name below the module is not enough: `output.dense.weight` also ends `attention.output.dense.weight`.
    begin = len(".".join(above.split(".")[:-2]))
    return f"(^|\\.){re.escape(name[begin:].lstrip('.'))}$"
