"""DepthSearch: the result of a search, computed from the trials of its study, and its conclusion in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ..comparison.result import read_record
from .statistics import ScoreEstimate, estimates
from .trials import BASELINE, DEPTH, DONE, ERROR, MEMORY, RATE, REPLICATES, ROLE, SAVED, SCENARIO, SCORES, SECONDS

SCHEMA = 1


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
    learning_rate: float | None = None
    full_fine_tuning: bool = False
    scores: tuple[float, ...] = ()
    estimate: ScoreEstimate | None = None
    seconds: float | None = None
    speedup: float | None = None
    memory: float | None = None
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
    """

    title: str
    metric: str
    replicates: tuple[str, ...]
    tolerance: float
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
    replicates: Sequence[str],
    is_full: Callable[[str], bool] = lambda scenario: False,
    *,
    greater_is_better: bool = True,
) -> list[Outcome]:
    """Return an outcome for each candidate that was tried on exactly these replicates, in the order of the queue.

    The scores of a minimized metric are negated: higher is better in the outcomes. `is_full` says whether a scenario
    is full fine-tuning.
    """
    named = list(replicates)
    latest: dict[tuple[Any, ...], FrozenTrial] = {}
    for trial in trials:
        if trial.user_attrs.get(REPLICATES) == named and trial.state in (*DONE, TrialState.FAIL):
            key = (trial.user_attrs[SCENARIO], trial.user_attrs.get(RATE))
            if key not in latest or trial.state in DONE:
                latest[key] = trial
    done = {key: trial for key, trial in latest.items() if trial.state in DONE}
    sign = 1 if greater_is_better else -1
    scores = {key: tuple(sign * score for score in trial.user_attrs[SCORES]) for key, trial in done.items()}
    estimated: dict[tuple[Any, ...], ScoreEstimate] = {}
    # Baselines cannot be chosen, so they take no probability of being best from the candidates.
    for beside in (False, True):
        group = {key: s for key, s in scores.items() if s and (latest[key].user_attrs[ROLE] == BASELINE) == beside}
        found = estimates(group, len(named))
        estimated |= {key: replace(e, best=None) for key, e in found.items()} if beside else found
    full = [key for key in done if key[1] is None and is_full(key[0])]
    seconds = [value for key in full for value in done[key].user_attrs[SECONDS]]
    reference = fmean(seconds) if seconds else None
    built = [
        replace(
            _outcome(trial, scores.get(key, ()), reference), estimate=estimated.get(key), full_fine_tuning=key in full
        )
        for key, trial in latest.items()
    ]
    return [replace(outcome, on_front=not any(_dominates(other, outcome) for other in built)) for outcome in built]


def choose(outcomes: Sequence[Outcome], tolerance: float) -> tuple[Outcome, Outcome]:
    """Return k* and k_fast. Of equal means the deeper is chosen (of samples, the faster).

    Raises:
        ValueError: If no outcome has all its scores.
    """
    known = [outcome for outcome in outcomes if outcome.estimate is not None and not outcome.pruned]

    def thrift(outcome: Outcome) -> float:
        return float(outcome.depth) if outcome.depth is not None else -(outcome.seconds or 0.0)

    best = max(known, key=lambda outcome: (outcome.mean, thrift(outcome)))
    # Differences of decimal fractions are not exact in binary.
    near = [outcome for outcome in known if best.mean - outcome.mean <= tolerance + 1e-12]
    return best, max(near, key=thrift)


def conclude(
    outcomes: Sequence[Outcome],
    best: Outcome,
    fast: Outcome,
    *,
    counted: str,
    tolerance: float,
    replicates: int,
    greater_is_better: bool = True,
) -> tuple[str, ...]:
    """Return the conclusion in sentences; `counted` names the replicates, such as `3 seeds`.

    Scores of a maximized metric are given in percent, those of a minimized one as they are.
    """
    by_depth = best.depth is not None
    margin = f"{100 * tolerance:g} points" if greater_is_better else f"{tolerance:g}"
    within = f"the {'deepest' if by_depth else 'fastest'} within {margin} of it"
    mean = _score_text(best.mean, greater_is_better)
    also = f"it is also {within}{_speed(best)}"
    if fast.name != best.name:
        also = f"{within} is {fast.label} ({_score_text(fast.mean, greater_is_better)}{_speed(fast)})"
    sentences = [
        f"The best {'k' if by_depth else 'candidate'} is {best.label} ({mean}); {also}.",
        _separation(outcomes, best, counted, replicates),
    ]
    pruned = [outcome for outcome in outcomes if outcome.pruned]
    if pruned:
        sentences.append(
            f"{_listed(pruned)} {_were(pruned)} pruned before the last of {counted}: clearly worse on those that ran."
        )
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        sentences.append(f"{_listed(failed)} failed and {_were(failed)} not compared.")
    return tuple(sentences)


def compare_with_baselines(best: Outcome, baselines: Sequence[Outcome], *, greater_is_better: bool = True) -> list[str]:
    """Return a sentence on how k* compares with the best baseline, empty if there is none."""
    known = [outcome for outcome in baselines if outcome.estimate is not None]
    if not known:
        return []
    rival = (max if greater_is_better else min)(known, key=lambda outcome: outcome.mean)
    by = best.mean - rival.mean
    speed = f", {rival.speedup:.1f}× full fine-tuning's speed" if rival.speedup else ""
    difference = _score_text(abs(by), greater_is_better)
    return [
        f"The best baseline is {rival.name} ({_score_text(rival.mean, greater_is_better)}{speed}); "
        f"k* is {difference} {'above' if by >= 0 else 'below'} it."
    ]


def ranges(numbers: Sequence[int]) -> str:
    """Return the numbers in words.

    >>> ranges([0, 1, 2, 4, 6, 7])
    '0 to 2, 4, 6 and 7'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [p for run in runs for p in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _outcome(trial: FrozenTrial, scores: tuple[float, ...], reference: float | None) -> Outcome:
    """The outcome of one trial; `reference` is the time of full fine-tuning."""
    attributes = trial.user_attrs
    scenario, role = attributes[SCENARIO], attributes[ROLE]
    depth = trial.params.get("depth") if role == DEPTH else None
    if not scores:
        error = attributes.get(ERROR, f"its workers died while they trained {scenario}")
        return Outcome(scenario, role, depth, attributes.get(RATE), error=error)
    saved = zip(attributes[SECONDS], attributes[SAVED], strict=True)
    seconds = fmean([own + share * (reference or 0.0) for own, share in saved])
    memory = [count for count in attributes[MEMORY] if count is not None]
    return Outcome(
        scenario,
        role,
        depth,
        attributes.get(RATE),
        scores=scores,
        seconds=seconds,
        speedup=reference / seconds if reference else None,
        memory=fmean(memory) if memory else None,
        pruned=trial.state == TrialState.PRUNED,
    )


def _dominates(one: Outcome, other: Outcome) -> bool:
    """Whether `one` is at least as good in score and time, and better in one of them."""
    if one.estimate is None or one.seconds is None or one.pruned:
        return False
    if other.estimate is None or other.seconds is None or other.pruned:
        return True
    mine, theirs = (one.mean, -one.seconds), (other.mean, -other.seconds)
    return mine != theirs and mine[0] >= theirs[0] and mine[1] >= theirs[1]


def _separation(outcomes: Sequence[Outcome], best: Outcome, counted: str, replicates: int) -> str:
    """The outcomes that the confidence intervals cannot tell from the best one."""
    if replicates < 2:
        return (
            "With one seed no interval can be given, so how much of a difference is chance is unknown. Give more "
            "seeds, or --folds."
        )
    assert best.estimate is not None
    whole = [(o, o.estimate) for o in outcomes if o.estimate is not None and o.estimate.low is not None]
    near = [outcome for outcome, estimate in whole if estimate.overlaps(best.estimate)]
    if len(near) == 1:
        return f"The interval of {best.label} overlaps no other with {counted}."
    fastest = max(near, key=lambda outcome: outcome.speedup or 0.0)
    sentence = f"{_listed(near)} cannot be told apart with {counted}"
    faster = _speed(fastest).removeprefix(", ")
    return f"{sentence}; {fastest.label} is {faster}." if faster else f"{sentence}."


def _listed(outcomes: Sequence[Outcome]) -> str:
    depths = [outcome.depth for outcome in outcomes if outcome.depth is not None]
    return ranges(depths) if len(depths) == len(outcomes) else ", ".join(outcome.name for outcome in outcomes)


def _were(outcomes: Sequence[Outcome]) -> str:
    return "was" if len(outcomes) == 1 else "were"


def _speed(outcome: Outcome) -> str:
    """`, 2.1× faster than full fine-tuning`; empty for full fine-tuning itself, or where it was not run."""
    if outcome.speedup is None or outcome.full_fine_tuning:
        return ""
    if outcome.speedup < 1:
        return f", {1 / outcome.speedup:.1f}× slower than full fine-tuning"
    return f", {outcome.speedup:.1f}× faster than full fine-tuning"


def _score_text(score: float, greater_is_better: bool) -> str:
    return f"{100 * score:.2f}" if greater_is_better else f"{score:.4g}"
