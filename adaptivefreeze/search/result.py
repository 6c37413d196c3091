"""DepthSearch: the result of a search, computed from the trials of its study, and its conclusion in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from ..comparison.result import Number, read_record
from ..comparison.statistics import t_interval
from .trials import DONE, ERROR, MEMORY, RATE, REPLICATES, ROLE, SAVED, SCENARIO, SCORES, SECONDS, Replicate, work_key

SCHEMA = 1

_DRAWS, _SEED = 10_000, 0
_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True)
class ScoreEstimate:
    """The score of one candidate over seeds or folds.

    Args:
        mean: Mean score.
        sd: Sample standard deviation; None with a single score.
        low: Lower bound of the mean's 95 % confidence interval; None with a single seed or fold, or if the
            candidate was not scored on all of them.
        high: Upper bound of that interval, or None.
        best: Probability that no other candidate has a better mean, or None.
    """

    mean: Number
    sd: Number | None = None
    low: Number | None = None
    high: Number | None = None
    best: Number | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two bounds")


@dataclass(frozen=True)
class Outcome:
    """The result of one candidate.

    Args:
        scenario: The policy's spec.
        role: `depth`, `sample` or `baseline`.
        depth: Number of frozen blocks in a search of depths.
        learning_rate: The learning rate, where the search varies it.
        full_fine_tuning: Whether the policy trains everything throughout.
        scores: One score per seed or fold; a pruned candidate has fewer.
        estimate: Mean score and its uncertainty; None if the candidate failed.
        seconds: Time of the training steps without rows cached by other trials, mean over seeds or folds.
        speedup: Full fine-tuning's `seconds` / these.
        memory: Mean peak memory in bytes.
        pruned: Whether the candidate was stopped before it had all scores.
        on_front: Whether no other candidate is better in score and time.
        test: Scores on the test split, if the candidate was chosen.
        error: Why the candidate has no scores.
    """

    scenario: str
    role: str
    depth: int | None = None
    learning_rate: Number | None = None
    full_fine_tuning: bool = False
    scores: tuple[Number, ...] = ()
    estimate: ScoreEstimate | None = None
    seconds: Number | None = None
    speedup: Number | None = None
    memory: Number | None = None
    pruned: bool = False
    on_front: bool = False
    test: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def name(self) -> str:
        """The scenario, with its learning rate where the search varies it."""
        return self.scenario if self.learning_rate is None else f"{self.scenario} at {self.learning_rate:.2g}"

    @property
    def label(self) -> str:
        """The depth if there is one, else the name."""
        return str(self.depth) if self.depth is not None else self.name

    @property
    def mean(self) -> float:
        """The mean score. Raises `ValueError` for a candidate without scores."""
        if self.estimate is None:
            raise ValueError(f"{self.name} has no score")
        return self.estimate.mean

    @property
    def complete(self) -> bool:
        """Whether the candidate has all its scores."""
        return self.estimate is not None and not self.pruned

    def negated(self) -> Outcome:
        """Return the same result with the sign of every score changed."""
        e = self.estimate
        if e is not None:
            low, high = (None if bound is None else -bound for bound in (e.high, e.low))
            e = replace(e, mean=-e.mean, low=low, high=high)
        return replace(self, scores=tuple(-score for score in self.scores), estimate=e)


@dataclass(frozen=True)
class DepthSearch:
    """The result of a search.

    Args:
        title: What was searched.
        metric: The metric of the scores, on validation examples.
        replicates: The seeds and folds of each candidate.
        tolerance: How far from the best score is good enough.
        outcomes: Every depth in order, or every sample, best first.
        baselines: The scenarios that were run for comparison.
        best: k*, the outcome with the best mean score.
        fast: k_fast, the deepest outcome whose mean is within `tolerance` of the best. In a sampled search, the one
            with the shortest training time.
        conclusion: The result in sentences.
        study: Name of the Optuna study.
        storage: Where the study is kept.
        greater_is_better: Whether the metric is maximized.
        folder: The output folder.
        ran: How many trials this call ran.
        guessing: The score of always answering the most frequent label, or None if it is unknown.
    """

    title: str
    metric: str
    replicates: tuple[str, ...]
    tolerance: Number
    outcomes: tuple[Outcome, ...]
    baselines: tuple[Outcome, ...]
    best: Outcome
    fast: Outcome
    conclusion: tuple[str, ...]
    study: str
    storage: str
    greater_is_better: bool = True
    folder: Path | None = None
    ran: int = 0
    guessing: Number | None = None

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The candidates without a finished training."""
        return tuple(outcome for outcome in (*self.outcomes, *self.baselines) if outcome.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` reads."""
        value = asdict(self)
        for name in ("folder", "ran"):
            del value[name]
        return {"schema": SCHEMA, **value, "best": self.best.name, "fast": self.fast.name}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DepthSearch:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The schema differs, or a field is missing, has the wrong type or is out of range.
        """
        if not isinstance(value, Mapping) or value.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        outcomes = read_record(tuple[Outcome, ...], value.get("outcomes"))
        stored = {outcome.name: item for outcome, item in zip(outcomes, value["outcomes"], strict=True)}
        chosen = {name: stored.get(str(value.get(name))) for name in ("best", "fast")}
        search: DepthSearch = read_record(cls, {**value, **chosen})
        if not search.metric or not search.replicates:
            raise ValueError("metric and replicates are empty")
        return search


def outcomes_of(
    trials: Sequence[FrozenTrial],
    replicates: Sequence[Replicate],
    is_full: Callable[[str], bool],
    *,
    greater_is_better: bool,
) -> list[Outcome]:
    """Return an outcome for each candidate that was tried on exactly these replicates, in the order of the queue.

    Scores of a minimized metric are negated. `is_full` says whether a scenario is full fine-tuning.
    """
    named = [str(replicate) for replicate in replicates]
    latest: dict[tuple[Any, ...], FrozenTrial] = {}
    for trial in trials:
        if trial.user_attrs.get(REPLICATES) == named and trial.state in (*DONE, TrialState.FAIL):
            key = work_key(trial.user_attrs)
            if key not in latest or trial.state in DONE:
                latest[key] = trial
    done = {key: trial for key, trial in latest.items() if trial.state in DONE}
    sign = 1 if greater_is_better else -1
    scores = {key: tuple(sign * score for score in trial.user_attrs[SCORES]) for key, trial in done.items()}
    baselines = {key for key, trial in done.items() if trial.user_attrs[ROLE] == "baseline"}
    estimated = estimates({key: scores[key] for key in done if key not in baselines}, len(named))
    # Baselines cannot be chosen, so they take no probability of being best from the candidates.
    beside = estimates({key: scores[key] for key in baselines}, len(named))
    estimated |= {key: replace(estimate, best=None) for key, estimate in beside.items()}
    full = {key for key, trial in done.items() if RATE not in trial.user_attrs and is_full(trial.user_attrs[SCENARIO])}
    seconds = [value for key in done if key in full for value in done[key].user_attrs[SECONDS]]
    reference = fmean(seconds) if seconds else None

    def outcome(key: tuple[Any, ...], trial: FrozenTrial) -> Outcome:
        attributes = trial.user_attrs
        plain = Outcome(attributes[SCENARIO], attributes[ROLE], learning_rate=attributes.get(RATE))
        if key not in done:
            died = f"its workers died while they trained {plain.scenario}"
            return replace(plain, error=attributes.get(ERROR, died))
        saved = zip(attributes[SECONDS], attributes[SAVED], strict=True)
        seconds = fmean([own + share * (reference or 0.0) for own, share in saved])
        memory = [count for count in attributes[MEMORY] if count is not None]
        return replace(
            plain,
            full_fine_tuning=key in full,
            scores=scores[key],
            estimate=estimated[key],
            seconds=seconds,
            speedup=reference / seconds if reference else None,
            memory=fmean(memory) if memory else None,
            pruned=trial.state == TrialState.PRUNED,
        )

    built = [outcome(key, trial) for key, trial in latest.items()]
    return [replace(one, on_front=not any(_dominates(other, one) for other in built)) for one in built]


def estimates(scores: Mapping[_Name, Sequence[float]], replicates: int) -> dict[_Name, ScoreEstimate]:
    """Estimate each candidate from its scores, higher ones being better; a complete one has `replicates` of them.

    The interval of a candidate is the t interval of its mean. The probability of being best follows from the joint t
    distribution of all means, with the covariance of the scores over seeds or folds: what is common to a seed does not
    count. It is drawn 10,000 times from a fixed seed, so that equal scores give equal estimates. Candidates that are
    equally good in a draw share it.
    """
    plain = {name: ScoreEstimate(fmean(s), stdev(s) if len(s) > 1 else None) for name, s in scores.items()}
    whole = [name for name, s in scores.items() if len(s) == replicates]
    if replicates < 2 or not whole:
        return plain
    table = np.array([scores[name] for name in whole], dtype=float)
    means = table.mean(axis=1, keepdims=True)
    random = np.random.default_rng(_SEED)
    # Normal draws with the covariance of the means, divided by the root of a chi-square: a multivariate t.
    normal = (table - means) @ random.standard_normal((replicates, _DRAWS)) / math.sqrt(replicates * (replicates - 1))
    drawn = means + normal / np.sqrt(random.chisquare(replicates - 1, _DRAWS) / (replicates - 1))
    # Sums in another order differ in the last bits: equal means must count as equal.
    winners = np.isclose(drawn, drawn.max(axis=0), rtol=0, atol=1e-12)
    best = (winners / winners.sum(axis=0)).mean(axis=1)
    for row, name in enumerate(whole):
        known, interval = plain[name], t_interval(list(scores[name]))
        plain[name] = ScoreEstimate(known.mean, known.sd, interval.low, interval.high, float(best[row]))
    return plain


def choose(outcomes: Sequence[Outcome], tolerance: float) -> tuple[Outcome, Outcome]:
    """Return k* and k_fast. Of equal means the deeper is chosen (of samples, the faster)."""
    known = [outcome for outcome in outcomes if outcome.complete]

    def thrift(outcome: Outcome) -> float:
        return float(outcome.depth) if outcome.depth is not None else -(outcome.seconds or 0.0)

    best = max(known, key=lambda outcome: (outcome.mean, thrift(outcome)))
    # Differences of decimal fractions are not exact in binary.
    near = [outcome for outcome in known if best.mean - outcome.mean <= tolerance + 1e-12]
    return best, max(near, key=thrift)


def _dominates(one: Outcome, other: Outcome) -> bool:
    """Whether `one` is at least as good in score and time, and better in one of them."""
    if not (one.complete and other.complete):
        return one.complete
    mine, theirs = (one.mean, -(one.seconds or 0.0)), (other.mean, -(other.seconds or 0.0))
    return mine != theirs and mine[0] >= theirs[0] and mine[1] >= theirs[1]
