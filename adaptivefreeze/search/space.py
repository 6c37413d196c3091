"""The search space: which depths to try next, and how a sampled search draws a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import Trial

from ..policies import BottomUp, Policy, TopDown, registered_policies
from .objective import Candidate, Replicate
from .options import SIDES
from .trials import DEPTH, SAMPLE, PlannedTrial

Scores = Mapping[int, float]
"""Depth -> mean score of the depths that are done; higher is better."""

BUDGET_SHARE = 0.30
LEAST_DEPTHS = 13
RATE_FACTOR = 4.0
"""Learning rates are sampled from a quarter of the configured one to four times it."""

STATIC = "static"
"""The name of `BottomUp` and `TopDown` together in a sampled search: they share a depth."""


def budget(depths: int) -> float:
    """Return what `QuickPlan` may spend, in full fine-tunings: 30 % of one per depth, for at least 13 depths.

    In a shallower model the coarse depths alone cost that much, and the neighbors of the best would stay untried.
    """
    return BUDGET_SHARE * max(depths, LEAST_DEPTHS)


@dataclass(frozen=True)
class DepthPlan:
    """Tries every depth, from shallow to deep, so that each depth starts from the cached rows of the one before.

    A plan depends on the scores alone, so that every worker of a search makes the same one.
    """

    depths: tuple[int, ...]

    def wanted(self, done: Scores) -> Sequence[int]:
        """Return the depths wanted so far, in the order to start them, including those that are done."""
        return sorted(self.depths)

    def untried(self, done: Scores) -> str | None:
        """Return a sentence about the depths that were not tried, None if all were."""
        return None


@dataclass(frozen=True)
class QuickPlan(DepthPlan):
    """Tries coarse depths first, then around the best, until no untried depth can win by more than `tolerance`.

    The plan assumes that at the resolution of the coarse depths the curve is concave: every further frozen block
    costs at least as much as the one before it. The score of an untried depth is then bounded by the straight lines
    through the tried depths on either side of its gap. These bounds decide which depths can still win, which of them
    is tried next (the highest bound, and the cheapest of equal ones), and when the search ends. If the assumption
    does not hold, a better depth may stay untried; `untried` reports how many were.

    Args:
        depths: All depths of the search.
        tolerance: The gain in score that is worth another training.
        cost: Depth -> predicted time of a run / that of full fine-tuning. A depth that would bring the sum above
            `budget` is not started.
        percent: Whether scores are reported in percentage points.
    """

    tolerance: float
    cost: Callable[[int], float] = field(repr=False)
    percent: bool = True

    def wanted(self, done: Scores) -> Sequence[int]:
        coarse = self.coarse()
        if not set(coarse) <= set(done):
            return coarse
        following = self._next(done)
        return [*sorted(done), *([] if following is None else [following])]

    def coarse(self) -> list[int]:
        """Return both ends and two depths evenly spread between them; all depths if they are few."""
        depths = sorted(self.depths)
        last = len(depths) - 1
        return depths if last < 4 else [depths[round(part * last / 3)] for part in range(4)]

    def bounds(self, done: Scores) -> dict[int, float]:
        """Return the highest score that each untried depth can have if the curve is concave."""
        tried = sorted(done)
        found = {}
        for depth in sorted(set(self.depths) - set(tried)):
            right = next(place for place, other in enumerate(tried) if other > depth)
            left = right - 1
            # Lines through the two tried depths left of the gap and the two right of it, where there are two.
            sides = [(left, left - 1)] * (left > 0) + [(right, right + 1)] * (right + 1 < len(tried))
            lines = [_line(done, tried[near], tried[far], depth) for near, far in sides]
            # Where the tried depths contradict the assumption, the neighbors' scores are still reachable.
            found[depth] = max(min(lines), done[tried[left]], done[tried[right]])
        return found

    def untried(self, done: Scores) -> str | None:
        left = self.bounds(done) if set(self.coarse()) <= set(done) else {}  # a failed depth is reported elsewhere
        if not left:
            return None
        scale, unit = (100, " points") if self.percent else (1, "")
        tried = f"{len(done)} of {len(self.depths)} depths were tried"
        best = max(done.values())
        gain = max(left.values()) - best
        if gain <= self.tolerance:
            return (
                f"{tried}; if every further frozen block costs at least as much as the one before it, none of the "
                f"others wins by more than {scale * self.tolerance:g}{unit}."
            )
        reach = f"{scale * gain:.1f}{unit}" if self.percent else f"{gain:.3g}"
        able = ", ".join(str(depth) for depth, bound in sorted(left.items()) if bound - best > self.tolerance)
        spent = f"the budget of {budget(len(self.depths)):.1f} full fine-tunings was used up"
        ended = spent if self._next(done) is None else "one failed"
        return f"{tried}, then {ended}; depth {able} might still win by up to {reach}."

    def _next(self, done: Scores) -> int | None:
        best, bounds = max(done.values()), self.bounds(done)
        left = budget(len(self.depths)) - sum(self.cost(depth) for depth in done)
        winning = [d for d, bound in bounds.items() if bound - best > self.tolerance and self.cost(d) <= left]
        return max(winning, key=lambda depth: (bounds[depth], -self.cost(depth)), default=None)


def static_policy(side: str, depth: int) -> Policy:
    """Return the policy that freezes `depth` blocks from `side`; depth 0 has one spelling for both."""
    return TopDown(depth) if side == "top" and depth else BottomUp(depth)


def depth_trial(depth: int, side: str, blocks: int, replicates: Sequence[Replicate]) -> PlannedTrial:
    """Return the trial of one depth in a model of `blocks` blocks."""
    distributions = {"depth": IntDistribution(0, blocks), "side": CategoricalDistribution(SIDES)}
    candidate = Candidate(static_policy(side, depth))
    return PlannedTrial(candidate, replicates, DEPTH, {"depth": depth, "side": side}, distributions)


def sampled_policies() -> dict[str, type[Policy]]:
    """Return the policies of a sampled search by name: the registered ones with a `suggest` of their own."""
    own = {policy.name: policy for policy in registered_policies() if "suggest" in vars(policy)}
    return {STATIC: BottomUp, **{name: policy for name, policy in own.items() if policy not in (BottomUp, TopDown)}}


def sample_trial(trial: Trial, blocks: int, rate: float, replicates: Sequence[Replicate]) -> PlannedTrial:
    """Return what a sampled trial trains: a policy with its parameters, and a learning rate around `rate`."""
    sampled = sampled_policies()
    kind = trial.suggest_categorical("policy", tuple(sampled))
    chosen = sampled[kind]
    if kind == STATIC and trial.suggest_categorical("side", SIDES) == "top":
        chosen = TopDown
    policy = chosen.suggest(trial, blocks)
    if policy is None:
        raise RuntimeError(f"{kind} declares `suggest` but returns no policy")
    found = trial.suggest_float("learning_rate", rate / RATE_FACTOR, rate * RATE_FACTOR, log=True)
    return PlannedTrial(Candidate(policy, float(f"{found:.2g}")), replicates, SAMPLE)


def _line(done: Scores, near: int, far: int, depth: int) -> float:
    """Return the value at `depth` of the straight line through two tried depths."""
    return done[near] + (done[near] - done[far]) / (near - far) * (depth - near)
