"""Budget: finishes in a given fraction of the time of full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from .arguments import check_flag, check_number
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals, StepCosts
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

SMOOTHING = 0.3  # weight of a new importance in the moving average
SLACK = 0.02  # deviation from the budget, as a fraction of it, below which the boundary stays
CLEARLY = 1.5  # gain at which a shortened run freezes a depth; importance is only a rough estimate
LEARNED = 5  # decision points before importance is used; at first, the head changes most
APART = 5  # smallest number of steps between decision points of a shortened run; each has a cost
PACE_SAID = 0.1  # relative change of the pace from which it is recorded in the timeline


@register_policy
@dataclass
class Budget(AdaptivePolicy):
    """Finishes in a given fraction of the time of full fine-tuning, giving up as little as possible.

    Time is counted in steps of full fine-tuning. It is predicted from the shapes of the batches, including the steps
    that fill, extend and read the prefix cache. With `clock`, the prediction starts from full steps timed on this
    machine and is corrected by the measured time of the run so far, so that decisions may differ slightly between
    runs. Without `clock`, or when something is frozen from the first step on, everything is predicted from shapes and
    reproducible.

    What a frozen unit gives up is its importance: −Σ Δw·g of a step, smoothed over decision points.

    - With `shorten`, the learning-rate schedule passes faster and ends when the budget is spent. A depth is frozen,
      for the rest of the run, only when the steps that this pays for are clearly worth more than what the frozen units
      would have learned.
    - Without `shorten`, the run keeps its number of steps and the boundary moves. At each decision point every depth
      is a candidate: frozen from some later step to the end, it brings the run to its budget. The candidate that gives
      up least importance is chosen, and the boundary moves when that step has come. Blocks unfreeze in the same way
      when time is left over. Without a cache, a ratio below the cost of a run with all blocks frozen cannot be met;
      then all blocks freeze, and the reason says so.

    The rule is that of GreenTrainer (Huang et al. 2023, arXiv 2309.13192) with measured costs, a cache and shorter
    runs.

    Args:
        ratio: Fraction of the time of full fine-tuning, above 0 and up to 1.
        decisions: Number of decision points, at equal distances.
        clock: Use measured times.
        shorten: Take fewer steps instead of moving the boundary.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "budget"
    ratio: float = 0.5
    decisions: int = 50
    clock: bool = True
    shorten: bool = True
    _spent: float = field(default=0.0, init=False, repr=False, compare=False)
    _last: int = field(default=0, init=False, repr=False, compare=False)
    _moved: int = field(default=0, init=False, repr=False, compare=False)
    _came_from: int = field(default=0, init=False, repr=False, compare=False)
    _decided: int = field(default=0, init=False, repr=False, compare=False)
    _pace: float = field(default=1.0, init=False, repr=False, compare=False)  # the last recorded one
    _importance: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "ratio", self.ratio, 0, 1, open_low=True)
        check_number(self.name, "decisions", self.decisions, 1, whole=True)
        check_flag(self.name, "clock", self.clock)
        check_flag(self.name, "shorten", self.shorten)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"importance", "timed costs" if self.clock else "costs"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, total_steps, self._gap(total_steps)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.costs is not None
        if undefined := signals.non_finite():
            return undefined
        costs, step = signals.costs, signals.step
        now = signals.mask.leading_blocks
        self._decided += 1
        self._learn(signals.importance or {})
        # Add the cost of the steps since the last decision point: measured if possible, else predicted.
        self._spent += self._cost(costs, now, self._came_from, self._last - self._moved, step - self._moved)
        if costs.taken is not None:
            self._spent = costs.taken
        self._last = step
        return self._shortened(signals, costs, now) if self.shorten else self._moved_boundary(signals, costs, now)

    def _gap(self, total_steps: int) -> int:
        """Steps between decision points. A shortened run has the same number of them in fewer steps."""
        if self.shorten:
            return max(APART, round(self.ratio * total_steps) // self.decisions)
        return max(1, total_steps // self.decisions)

    # In fewer steps

    def _shortened(self, signals: Signals, costs: StepCosts, now: int) -> Decision | None:
        """Set the pace that ends the schedule with the budget, at the depth with the most valuable remaining steps."""
        if self.ratio == 1:  # the budget pays for all steps, even when one is slow
            return None
        left = signals.total_steps - signals.step - signals.ahead
        money = max(0.0, self.ratio * signals.total_steps - self._spent)
        steps = {now: self._affordable(costs, now, self._came_from, signals.step - self._moved, money)}
        goal = now
        if self._decided > LEARNED:
            steps |= {k: self._affordable(costs, k, now, 0, money) for k in range(now + 1, signals.mask.depth + 1)}
            worth = {k: self._trained(k, signals.mask.depth) * min(left, found) for k, found in steps.items()}
            best = max(worth, key=lambda k: worth[k])
            if worth[best] > CLEARLY * worth[now] > 0:
                goal = best
        pace = max(1.0, left / max(1.0, steps[goal]))
        last = left <= pace * self._gap(signals.total_steps)  # there is no further decision point
        told = not last and abs(pace / self._pace - 1) > PACE_SAID
        if told:
            self._pace = pace
        shown = f"budget {self.ratio:g}: {self._spent / signals.total_steps:.2f} spent"
        if goal != now:
            gained = worth[goal] / worth[now]
            moving = self._moving(
                signals, now, goal, f"{shown}, the remaining steps are worth {gained:.1f} times as much"
            )
            return replace(moving, pace=pace)
        return Decision(
            signals.mask, f"{shown}, the schedule passes {pace:.2f} times as fast" if told else "", pace=pace
        )

    def _affordable(self, costs: StepCosts, depth: int, came_from: int, begin: int, money: float) -> float:
        """Number of steps that `money` pays for, from step `begin` after the boundary moved to `depth`."""
        first, later = self._rates(costs, depth, came_from)
        filling = max(0.0, costs.examples_pass - begin)
        if money <= filling * first:
            return money / first
        return filling + (money - filling * first) / later

    def _trained(self, prefix: int, depth: int) -> float:
        """Importance of the units above the first `prefix` blocks."""
        names = [block_name(i) for i in range(prefix, depth)] + [HEAD] + ([] if prefix else [EMBEDDINGS])
        return sum(max(0.0, self._importance.get(name, 0.0)) for name in names)

    # In as many steps

    def _moved_boundary(self, signals: Signals, costs: StepCosts, now: int) -> Decision | None:
        """Move the boundary if the time of the move that gives up least importance has come."""
        depth, step = signals.mask.depth, signals.step
        budget = self.ratio * signals.total_steps
        to_go = signals.total_steps - step
        held = self._spent + self._cost(
            costs, now, self._came_from, step - self._moved, signals.total_steps - self._moved
        )
        over = held - budget
        if abs(over) <= SLACK * budget:
            return None
        plans = [plan for goal in range(depth + 1) if (plan := self._plan(costs, now, goal, over, to_go)) is not None]
        gap = self._gap(signals.total_steps)
        if not plans:
            if over < 0 or now == depth:
                return None
            return self._moving(
                signals, now, depth, f"even with all blocks frozen the run takes more than {self.ratio:g}"
            )
        if over > 0:
            _, wait, goal = min(plans)
        else:
            _, wait, goal = max(plans)
        if wait > gap / 2:  # the next decision point is closer to it
            return None
        if over < 0 and to_go - wait < gap:  # too few steps to learn anything
            return None
        shown = f"{self._spent / signals.total_steps:.2f} spent, {held / signals.total_steps:.2f} at this depth"
        return self._moving(signals, now, goal, f"budget {self.ratio:g}: {shown}")

    def _plan(self, costs: StepCosts, now: int, goal: int, over: float, to_go: int) -> tuple[float, int, int] | None:
        """(importance given up, steps to wait, goal) of a move to `goal` that saves just `over`; None without one."""
        if (goal > now) != (over > 0) or goal == now:
            return None

        def saved(steps: int) -> float:
            """Time saved when the move holds for the last `steps` steps."""
            return self._hold(costs, now, steps) - self._cost(costs, goal, now, 0, steps)

        low, high = 0, to_go  # bisection for the smallest number of steps that saves enough
        enough = saved(to_go) >= over if over > 0 else saved(to_go) <= over
        if over > 0 and not enough:
            return None
        if over < 0 and not enough:
            low = to_go  # unfreeze at once; even then some time is left over
        while low < high:
            middle = (low + high) // 2
            if (saved(middle) >= over) if over > 0 else (saved(middle) <= over):
                high = middle
            else:
                low = middle + 1
        if over < 0 and enough and low > 0:
            low -= 1  # stay within the budget
        if low == 0:
            return None
        stake = sum(self._worth(i) for i in range(min(now, goal), max(now, goal)))
        if 0 in (now, goal):
            stake += self._importance.get(EMBEDDINGS, 0.0)
        return max(0.0, stake) * low, to_go - low, goal

    def _hold(self, costs: StepCosts, depth: int, steps: int) -> float:
        """Cost of `steps` more steps at the current depth, with a full cache."""
        return steps * costs.skipped[depth]

    # Both ways

    def _cost(self, costs: StepCosts, depth: int, came_from: int, begin: int, end: int) -> float:
        """Cost of steps `begin` to `end`, counted from the move of the boundary from `came_from` to `depth`."""
        first, later = self._rates(costs, depth, came_from)
        filling = max(0.0, min(end, costs.examples_pass) - begin)
        return filling * first + (end - begin - filling) * later

    def _rates(self, costs: StepCosts, depth: int, came_from: int) -> tuple[float, float]:
        """Cost of a step in the first pass over the data after such a move, and in later passes."""
        if not costs.cached or depth == 0:
            return costs.run[depth], costs.run[depth]
        # Rows stored at a shallower boundary are extended: only the blocks between the boundaries run.
        missing = (depth - came_from) / depth if 0 < came_from < depth else 1.0
        first = costs.skipped[depth] + missing * (costs.run[depth] - costs.skipped[depth])
        return first + costs.filling * costs.run[depth], costs.skipped[depth]

    def _moving(self, signals: Signals, now: int, goal: int, reason: str) -> Decision:
        self._came_from, self._moved = now if goal > now else 0, signals.step
        self._last = signals.step
        mask = FreezeMask.first(signals.mask.depth, goal) if goal else FreezeMask(signals.mask.depth)
        return Decision(mask, reason)

    def _learn(self, importance: Mapping[str, float]) -> None:
        for name, value in importance.items():
            known = self._importance.get(name, value)
            self._importance[name] = known + SMOOTHING * (value - known)

    def _worth(self, block: int) -> float:
        return self._importance.get(block_name(block), 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "spent": self._spent,
            "last": self._last,
            "moved": self._moved,
            "came_from": self._came_from,
            "decided": self._decided,
            "pace": self._pace,
            "importance": self._importance,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._spent, self._last = state["spent"], state["last"]
        self._moved, self._came_from = state["moved"], state["came_from"]
        self._decided, self._pace = state["decided"], state["pace"]
        self._importance = dict(state["importance"])
