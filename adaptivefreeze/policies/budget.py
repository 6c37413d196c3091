"""Budget: finish in a given share of the full run's time, giving up as little as possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from .arguments import check_number
from .base import AdaptivePolicy, Decision, DecisionPoints, Signals, StepCosts
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

SMOOTHING = 0.3  # weight of a new importance against what is known
SLACK = 0.02  # of the budget: less than this over or under it is not worth a move
CLEARLY = 1.5  # times as much worth a budget must buy for a shortened run to freeze: importance is a rough number
LEARNED = 5  # moments before which it is too rough altogether: at first, the head moves most
APART = 5  # steps at least between the moments of a shortened run: each costs a part of a step
PACE_SAID = 0.1  # a change of pace by less than this share is not worth a line


@register_policy
@dataclass
class Budget(AdaptivePolicy):
    """Makes the run take the share `ratio` of the time of full fine-tuning, in fewer steps or by freezing.

    Time is in steps of full fine-tuning, predicted for the shapes of the batches and with the cache's passes as they
    are: filling, carrying rows up, skipping. With `clock` full steps are timed on this machine, the prediction starts
    from them, and what the clock says of the steps so far corrects it: decisions may differ a little from run to run.
    Without it, or where something is frozen from the first step on, all comes from shapes, always alike.

    What is given up is importance, −Σ Δw·g of a unit in a step, smoothed over moments, of which there are `decisions`,
    equally far apart.

    - `shorten`: the learning-rate schedule passes faster, so that it ends where the budget does. A depth is frozen, for
      good, where the steps that this pays for are clearly worth more than what the frozen units would have learned.
    - Without it the run keeps its steps and the boundary moves. At each moment every depth is a candidate: held from
      some moment to the end, it brings the run to its budget. The latest such moment is what the budget gives. The
      candidate that gives up least is taken; it moves when its moment has come. Should the plan leave time over,
      blocks thaw again in the same way. Without the cache a ratio under what a frozen run costs cannot be met: all
      blocks freeze, and the reason says so.

    Raises `RequestError` for a ratio outside of (0, 1].
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
    _asked: int = field(default=0, init=False, repr=False, compare=False)
    _pace: float = field(default=1.0, init=False, repr=False, compare=False)  # the last one that was said
    _importance: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "ratio", self.ratio, 0, 1, open_low=True)
        check_number(self.name, "decisions", self.decisions, 1, whole=True)
        for name in ("clock", "shorten"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{self.name}: {name} must be true or false, not {getattr(self, name)!r}.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"importance", "timed costs" if self.clock else "costs"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(range(1, total_steps, self._gap(total_steps)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.costs is not None
        costs, step = signals.costs, signals.step
        now = max(0, signals.mask.prefix - 1)
        self._asked += 1
        self._learn(signals.importance or {})
        # What was held since the last moment is paid for: by the clock, where it was looked at.
        self._spent += self._cost(costs, now, self._came_from, self._last - self._moved, step - self._moved)
        if costs.taken is not None:
            self._spent = costs.taken
        self._last = step
        return self._shortened(signals, costs, now) if self.shorten else self._moved_boundary(signals, costs, now)

    def _gap(self, total_steps: int) -> int:
        """Steps from one moment to the next: as many decisions in the steps that the budget leaves, if it shortens."""
        if self.shorten:
            return max(APART, round(self.ratio * total_steps) // self.decisions)
        return max(1, total_steps // self.decisions)

    # In fewer steps

    def _shortened(self, signals: Signals, costs: StepCosts, now: int) -> Decision | None:
        """The pace that ends the schedule with the budget, at the depth where the steps left are worth most."""
        if self.ratio == 1:  # all steps can be paid for, whatever a clock says of a slow one
            return None
        left = signals.total_steps - signals.step - signals.ahead
        money = max(0.0, self.ratio * signals.total_steps - self._spent)
        steps = {now: self._affordable(costs, now, self._came_from, signals.step - self._moved, money)}
        goal = now
        if self._asked > LEARNED:
            steps |= {k: self._affordable(costs, k, now, 0, money) for k in range(now + 1, signals.mask.depth + 1)}
            worth = {k: self._trained(k, signals.mask.depth) * min(left, found) for k, found in steps.items()}
            best = max(worth, key=lambda k: worth[k])
            if worth[best] > CLEARLY * worth[now] > 0:
                goal = best
        pace = max(1.0, left / max(1.0, steps[goal]))
        last = left <= pace * self._gap(signals.total_steps)  # no other moment comes: what is left is a few steps
        told = not last and abs(pace / self._pace - 1) > PACE_SAID
        if told:
            self._pace = pace
        shown = f"budget {self.ratio:g}: {self._spent / signals.total_steps:.2f} spent"
        if goal != now:
            gained = worth[goal] / worth[now]
            moving = self._moving(signals, now, goal, f"{shown}, what it buys is worth {gained:.1f} times as much")
            return replace(moving, pace=pace)
        return Decision(
            signals.mask, f"{shown}, the schedule passes {pace:.2f} times as fast" if told else "", pace=pace
        )

    def _affordable(self, costs: StepCosts, depth: int, came_from: int, begin: int, money: float) -> float:
        """How many steps from number `begin` after the boundary moved from `came_from` to `depth` cost `money`."""
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
        """The move whose moment has come, of those that bring the run to its budget and give up least."""
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
            return self._moving(signals, now, depth, f"with all blocks frozen it still takes more than {self.ratio:g}")
        if over > 0:
            _, wait, goal = min(plans)
        else:
            _, wait, goal = max(plans)
        if wait > gap / 2:  # the next moment is nearer
            return None
        if over < 0 and to_go - wait < gap:  # too short to learn anything in
            return None
        shown = f"{self._spent / signals.total_steps:.2f} spent, {held / signals.total_steps:.2f} if held"
        return self._moving(signals, now, goal, f"budget {self.ratio:g}: {shown}")

    def _plan(self, costs: StepCosts, now: int, goal: int, over: float, to_go: int) -> tuple[float, int, int] | None:
        """(importance at stake, steps to wait, goal): when to move to `goal` so that `over` is just made up for."""
        if (goal > now) != (over > 0) or goal == now:
            return None

        def saved(steps: int) -> float:
            """By the move, if it holds for the last `steps` steps."""
            return self._hold(costs, now, steps) - self._cost(costs, goal, now, 0, steps)

        low, high = 0, to_go  # the fewest steps that make up for it
        enough = saved(to_go) >= over if over > 0 else saved(to_go) <= over
        if over > 0 and not enough:
            return None
        if over < 0 and not enough:
            low = to_go  # thaws at once, and does not use up all that is left
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
        """`steps` more steps at the present depth, at the end of what it is held for."""
        return steps * costs.skipped[depth]

    # Both ways

    def _cost(self, costs: StepCosts, depth: int, came_from: int, begin: int, end: int) -> float:
        """Steps number `begin` to `end` after the boundary moved from `came_from` to `depth`."""
        first, later = self._rates(costs, depth, came_from)
        filling = max(0.0, min(end, costs.examples_pass) - begin)
        return filling * first + (end - begin - filling) * later

    def _rates(self, costs: StepCosts, depth: int, came_from: int) -> tuple[float, float]:
        """What a step costs in the first pass over the data after such a move, and in later ones."""
        if not costs.cached or depth == 0:
            return costs.run[depth], costs.run[depth]
        # Rows that are stored at a shallower boundary need only the blocks between.
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
            if value == value:  # a number
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
            "asked": self._asked,
            "pace": self._pace,
            "importance": self._importance,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._spent, self._last = state["spent"], state["last"]
        self._moved, self._came_from = state["moved"], state["came_from"]
        self._asked, self._pace = state["asked"], state["pace"]
        self._importance = dict(state["importance"])
