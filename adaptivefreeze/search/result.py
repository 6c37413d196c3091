"""DepthSearch: what a search has found, read from the trials of its study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ..comparison.scenarios import UNFROZEN
from ..policies import parse_policy
from .statistics import Certainty, certainty
from .trials import DONE, ERROR, RATE, ROLE, SCENARIO, UNITS
from .units import Unit

SCORES = "scores"
SECONDS, SPARED, MEMORY = "train seconds", "share of a full run spared", "peak memory bytes"
DEPTH, BASELINE, SAMPLE = "depth", "baseline", "sample"


@dataclass(frozen=True)
class Outcome:
    """One candidate. `scores` are one a unit, those of a pruned candidate fewer. `seconds` of training steps are those
    of a run on its own, without rows that other trials had left, mean over units; `speedup` is full fine-tuning's
    time / this. `memory` in bytes. `error` says why it has no scores."""

    scenario: str
    role: str
    depth: int | None = None
    learning_rate: float | None = None
    scores: tuple[float, ...] = ()
    certainty: Certainty | None = None
    seconds: float | None = None
    speedup: float | None = None
    memory: float | None = None
    pruned: bool = False
    on_front: bool = False
    test: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def name(self) -> str:
        """The scenario, with its learning rate where that was searched for."""
        return self.scenario if self.learning_rate is None else f"{self.scenario} at {self.learning_rate:.2g}"

    @property
    def mean(self) -> float:
        """Mean score over units. Raises `ValueError` for a candidate without scores."""
        if self.certainty is None:
            raise ValueError(f"{self.name} has no score")
        return self.certainty.mean


@dataclass(frozen=True)
class DepthSearch:
    """The answer of a search. Scores are of `metric` on validation examples.

    `best` is k*: the highest mean score. `fast` is k_fast: of those whose mean is within `tolerance` of the best, the
    deepest (in a sampled search: the one that trains in the shortest time). `outcomes`: every depth, in order, or
    every sample, best first; `baselines` were run to compare with. `words` say it in sentences. `ran`: how many
    trials this call has run. `study`, `storage`: where Optuna keeps it.
    """

    title: str
    metric: str
    units: tuple[str, ...]
    tolerance: float
    outcomes: tuple[Outcome, ...]
    baselines: tuple[Outcome, ...]
    best: Outcome
    fast: Outcome
    words: tuple[str, ...]
    study: str
    storage: str
    folder: Path | None = None
    ran: int = 0

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Candidates of which no training ended."""
        return tuple(outcome for outcome in (*self.outcomes, *self.baselines) if outcome.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for `from_json`."""
        value = asdict(self)
        for name in ("folder", "ran"):
            del value[name]
        return {"schema": 1, **value, "best": self.best.name, "fast": self.fast.name}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DepthSearch:
        """The answer that `to_json` wrote. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        if value["schema"] != 1:
            raise ValueError(f"its schema is {value['schema']!r}, not 1")
        outcomes, baselines = (tuple(map(_outcome, value[name])) for name in ("outcomes", "baselines"))
        named = {outcome.name: outcome for outcome in outcomes}
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        lists = {name: tuple(value[name]) for name in ("units", "words")}
        chosen = {name: named[value[name]] for name in ("best", "fast")}
        return cls(**{**known, **lists, **chosen, "outcomes": outcomes, "baselines": baselines})


def outcomes_of(trials: Sequence[FrozenTrial], units: Sequence[Unit]) -> list[Outcome]:
    """An outcome for each candidate that was tried on exactly these units, in the order in which they were queued."""
    named = [str(unit) for unit in units]
    latest: dict[tuple[Any, ...], FrozenTrial] = {}
    for trial in trials:
        attributes = trial.user_attrs
        if attributes.get(UNITS) != named or not (trial.state in DONE or trial.state == TrialState.FAIL):
            continue
        key = (attributes[SCENARIO], attributes.get(RATE))
        before = latest.get(key)
        if before is None or trial.state in DONE:
            latest[key] = trial
    done = {key: t for key, t in latest.items() if t.state in DONE}
    scores = {key: tuple(trial.user_attrs[SCORES]) for key, trial in done.items()}
    sure: dict[tuple[Any, ...], Certainty] = {}
    # Baselines are there to compare with, not to be chosen: they take no probability from what is searched.
    for beside in (False, True):
        group = {key: s for key, s in scores.items() if s and (latest[key].user_attrs[ROLE] == BASELINE) == beside}
        sure |= certainty(group, len(units))
    for key in [key for key in sure if latest[key].user_attrs[ROLE] == BASELINE]:
        sure[key] = replace(sure[key], best=None)
    unfrozen = [t for (scenario, rate), t in done.items() if scenario in UNFROZEN and rate is None]
    full = [seconds for trial in unfrozen for seconds in trial.user_attrs[SECONDS]]
    built = [_build(trial, scores.get(key, ()), sure.get(key), full) for key, trial in latest.items()]
    return [replace(outcome, on_front=not any(_beats(other, outcome) for other in built)) for outcome in built]


def choose(outcomes: Sequence[Outcome], tolerance: float) -> tuple[Outcome, Outcome]:
    """k* and k_fast. Of equal means the deeper (of samples: the faster) is chosen. Raises `ValueError` for none."""
    known = [outcome for outcome in outcomes if outcome.certainty is not None and not outcome.pruned]

    def thrift(outcome: Outcome) -> float:
        return float(outcome.depth) if outcome.depth is not None else -(outcome.seconds or 0.0)

    best = max(known, key=lambda outcome: (outcome.mean, thrift(outcome)))
    # Differences of decimal fractions carry binary dust.
    near = [outcome for outcome in known if best.mean - outcome.mean <= tolerance + 1e-12]
    return best, max(near, key=thrift)


def _build(trial: FrozenTrial, scores: tuple[float, ...], sure: Certainty | None, full: Sequence[float]) -> Outcome:
    attributes = trial.user_attrs
    policy = parse_policy(attributes[SCENARIO])
    known = {
        "scenario": attributes[SCENARIO],
        "role": attributes[ROLE],
        "depth": trial.params.get("depth") if attributes[ROLE] == DEPTH else None,
        "learning_rate": attributes.get(RATE),
    }
    if not scores:
        return Outcome(**known, error=attributes.get(ERROR, f"its workers died while they trained {policy}"))
    reference = fmean(full) if full else None
    measured, spared = attributes[SECONDS], attributes[SPARED]
    alone = [s + share * (reference or 0.0) for s, share in zip(measured, spared, strict=True)]
    memory = [count for count in attributes[MEMORY] if count is not None]
    return Outcome(
        **known,
        scores=scores,
        certainty=sure,
        seconds=fmean(alone),
        speedup=reference / fmean(alone) if reference else None,
        memory=fmean(memory) if memory else None,
        pruned=trial.state == TrialState.PRUNED,
    )


def _beats(one: Outcome, other: Outcome) -> bool:
    """Whether `one` is nowhere worse in score and time, and somewhere better. What has no score is beaten by any."""
    if one.certainty is None or one.seconds is None or one.pruned:
        return False
    if other.certainty is None or other.seconds is None or other.pruned:
        return True
    mine, theirs = (one.mean, -one.seconds), (other.mean, -other.seconds)
    return mine != theirs and mine[0] >= theirs[0] and mine[1] >= theirs[1]


def _outcome(value: Mapping[str, Any]) -> Outcome:
    sure = value["certainty"]
    certain = None if sure is None else Certainty(**sure)
    return Outcome(**{**value, "scores": tuple(value["scores"]), "certainty": certain})
