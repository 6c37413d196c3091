"""The search space: SearchOptions, the depths to try next, and how a sampled search draws a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.trial import Trial

from ..comparison.scenarios import expand
from ..errors import RequestError
from ..model.mask import block_name
from ..policies import BlockRates, BottomUp, Policy, TopDown, parse_policy, registered_policies

SIDES = ("bottom", "top")
SPACES = ("policies", "rates")

RATE_FACTOR = 4.0  # learning rates are sampled from a quarter of the configured one to four times it
BLOCK_FACTORS = (0.0, 0.1, 0.3, 1.0)
"""Factors on the learning rate of a block in the space `rates`: frozen, low, middle and high."""

STATIC = "static"  # `BottomUp` and `TopDown` in a sampled search: they share a depth

Scores = Mapping[int, float]
"""Depth -> mean score of the depths that are done; higher is better."""


@dataclass(frozen=True)
class SearchOptions:
    """What a search tries and how it scores it.

    Args:
        depths: Numbers of blocks to freeze; by default every number from 0 to all blocks.
        side: The end from which blocks are frozen, `"bottom"` or `"top"`.
        seeds: Seeds that each candidate is trained with.
        folds: Score on this many parts of the training split in turn instead of on the validation split.
        metric: The validation metric that decides.
        greater_is_better: Whether `metric` is maximized. If False, it is minimized.
        tolerance: How far below the best score a depth may lie to count as good enough, in units of `metric`.
        prune: Stop a candidate that is clearly worse on the seeds or folds run so far (Wilcoxon signed-rank test,
            p < 0.1). The test needs at least four of them.
        quick: Try a few depths first, then only those that can still win; see `space.QuickPlan`.
        trials: Sample this many combinations of policy, parameters and learning rate instead of trying depths.
        pareto: With `trials`, optimize score and training time together.
        space: What `trials` samples: `"policies"` for policies with their parameters and a learning rate, `"rates"` for
            a factor per block on the learning rate, found by an evolutionary sampler (P-Transfer).
        baselines: Scenarios to run for comparison, as specs or `Policy` objects. By default the set `paper` when all
            depths are searched, and none otherwise.
        storage: Where the Optuna study is kept; see `storage.open_storage`.
        study_name: Name of the Optuna study.
        workers: Number of local processes.

    Raises:
        RequestError: If a value is out of range or two options exclude each other.
    """

    depths: tuple[int, ...] | None = None
    side: str = "bottom"
    seeds: tuple[int, ...] = (0,)
    folds: int | None = None
    metric: str = "macro_f1"
    greater_is_better: bool = True
    tolerance: float = 0.005
    prune: bool = True
    quick: bool = False
    trials: int | None = None
    pareto: bool = False
    space: str = "policies"
    baselines: tuple[str | Policy, ...] | None = None
    storage: str | None = None
    study_name: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("workers", self.workers)):
            if value is not None and value < 1:
                raise RequestError(f"{name} {value} is not possible: give 1 or more.")
        if self.greater_is_better and not 0 <= self.tolerance < 1:
            raise RequestError(f"tolerance {self.tolerance:g} is not possible: give a share, from 0 to 0.99.")
        if self.tolerance < 0:
            raise RequestError(f"tolerance {self.tolerance:g} is not possible: give 0 or more.")
        if self.side not in SIDES:
            raise RequestError(f"side {self.side} is unknown: give {' or '.join(SIDES)}.")
        if self.trials and (self.quick or self.depths is not None):
            raise RequestError("trials samples depths itself: omit quick and depths.")
        if self.pareto and not self.trials:
            raise RequestError("pareto needs a sampled search: give trials as well.")
        if self.space not in SPACES:
            raise RequestError(f"space {self.space} is unknown: give {' or '.join(SPACES)}.")
        if self.space != "policies" and not self.trials:
            raise RequestError(f"the space {self.space} is sampled: give trials as well.")

    @property
    def compared_with(self) -> tuple[str | Policy, ...]:
        """The baselines that apply."""
        if self.baselines is not None:
            return self.baselines
        return () if self.quick or self.trials else ("paper",)

    def resolved(self, blocks: int) -> SearchOptions:
        """Return the options for a model, with baselines as policies. Raises `RequestError` if they do not fit it."""
        self.depths_of(blocks)
        given = self.compared_with
        return replace(self, baselines=expand(given, blocks) if given else ())

    def depths_of(self, blocks: int) -> tuple[int, ...]:
        """Return the depths to search in a model of `blocks` blocks, in ascending order."""
        depths = tuple(range(blocks + 1)) if self.depths is None else tuple(sorted(set(self.depths)))
        outside = [depth for depth in depths if not 0 <= depth <= blocks]
        if outside or not depths:
            given = ", ".join(map(str, outside)) or "nothing"
            raise RequestError(
                f"depths {given} is out of range: this model has {blocks} blocks, so give 0 to {blocks}."
            )
        return depths

    def policy(self, scenario: str) -> Policy:
        """Return the policy of a stored scenario: a baseline given as an object, or the parsed spec."""
        given = (policy for policy in self.compared_with if isinstance(policy, Policy) and str(policy) == scenario)
        return next(given, None) or parse_policy(scenario)

    def identity(self) -> dict[str, Any]:
        """Return what all trials of one study have in common, as plain JSON."""
        samples = "samples" if self.space == "policies" else self.space
        space = f"{samples}, score and time" if self.pareto else samples if self.trials else "depths"
        common = {"metric": self.metric, "greater_is_better": self.greater_is_better, "folds": self.folds}
        sampled = {"policies": list(sampled_policies())} if self.trials and self.space == "policies" else {}
        return {**common, "space": space, **sampled}


def budget(depths: int) -> float:
    """Return what `QuickPlan` may spend, in full fine-tunings: 30 % of one per depth."""
    return 0.30 * max(depths, 13)  # with fewer depths, the coarse ones alone would cost that much


@dataclass(frozen=True)
class DepthPlan:
    """Tries every depth, from shallow to deep, so that each depth starts from the cached rows of the one before."""

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

    The plan assumes that the curve is concave: every further frozen block costs at least as much as the one before it.
    The score of an untried depth is then bounded by the straight lines through the tried depths on either side of its
    gap. The next depth is the one with the highest bound, and the cheapest of equal ones. Where the assumption does not
    hold, a better depth may stay untried.
    """

    tolerance: float  # the gain in score that is worth another training
    cost: Callable[[int], float] = field(repr=False)  # depth -> predicted time of a run / that of full fine-tuning
    percent: bool = True  # whether scores are reported in percentage points

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
        unit = " points" if self.percent else ""
        tried = f"{len(done)} of {len(self.depths)} depths were tried"
        best = max(done.values())
        gain = max(left.values()) - best
        if gain <= self.tolerance:
            return (
                f"{tried}; if every further frozen block costs at least as much as the one before it, none of the "
                f"others wins by more than {100 * self.tolerance if self.percent else self.tolerance:g}{unit}."
            )
        reach = f"{100 * gain:.1f}" if self.percent else f"{gain:.3g}"
        able = ", ".join(str(depth) for depth, bound in left.items() if bound - best > self.tolerance)
        spent = f"the budget of {budget(len(self.depths)):.1f} full fine-tunings was used up"
        ended = spent if self._next(done) is None else "one failed"
        return f"{tried}, then {ended}; depth {able} might still win by up to {reach}{unit}."

    def _next(self, done: Scores) -> int | None:
        best, bounds = max(done.values()), self.bounds(done)
        left = budget(len(self.depths)) - sum(self.cost(depth) for depth in done)
        winning = [d for d, bound in bounds.items() if bound - best > self.tolerance and self.cost(d) <= left]
        return max(winning, key=lambda depth: (bounds[depth], -self.cost(depth)), default=None)


def static_policy(side: str, depth: int) -> Policy:
    """Return the policy that freezes `depth` blocks from `side`; depth 0 has one spelling for both."""
    return TopDown(depth) if side == "top" and depth else BottomUp(depth)


def sampled_policies() -> dict[str, type[Policy]]:
    """Return the policies of a sampled search by name: the registered ones with a `suggest` of their own."""
    own = {policy.name: policy for policy in registered_policies() if "suggest" in vars(policy)}
    return {STATIC: BottomUp, **{name: policy for name, policy in own.items() if policy not in (BottomUp, TopDown)}}


def sample(trial: Trial, blocks: int, rate: float) -> tuple[Policy, float]:
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
    return policy, float(f"{found:.2g}")


def sample_rates(trial: Trial, blocks: int) -> Policy:
    """Return a policy with a factor on the learning rate of each block, one of `BLOCK_FACTORS`.

    The embeddings have the factor of block 0. Reference: Shen et al. 2021, "Partial Is Better Than All: Revisiting
    Fine-tuning Strategy for Few-shot Learning" (arXiv 2102.03983).
    """
    factors = {name: trial.suggest_categorical(f"rate of {name}", BLOCK_FACTORS) for name in _block_names(blocks)}
    if set(factors.values()) == {1.0}:
        return BottomUp(0)  # full fine-tuning has one spelling, so that it is trained once
    return BlockRates.of({name: factor for name, factor in factors.items() if factor != 1})


def full_rates(blocks: int) -> dict[str, float]:
    """Return the parameters of full fine-tuning in the space `rates`."""
    return {f"rate of {name}": 1.0 for name in _block_names(blocks)}


def _block_names(blocks: int) -> list[str]:
    return [block_name(i) for i in range(blocks)]


def _line(done: Scores, near: int, far: int, depth: int) -> float:
    """Return the value at `depth` of the straight line through two tried depths."""
    return done[near] + (done[near] - done[far]) / (near - far) * (depth - near)
