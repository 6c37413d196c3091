"""The trials of a search: what they train, and the queue from which any number of workers run each of them once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from ..policies import Policy
from .storage import StaleTrials, heartbeat

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
LIVE = (TrialState.WAITING, TrialState.RUNNING, *DONE)

# User attributes of a trial.
SCENARIO, RATE, REPLICATES, ROLE, ERROR = "scenario", "learning rate", "replicates", "role", "failed because"
SCORES, SECONDS, SAVED, MEMORY = "scores", "train seconds", "share of a full run saved", "peak memory bytes"

Role = Literal["depth", "baseline", "sample", "chosen"]
Value = float | tuple[float, float]


class TrialFailed(RuntimeError):
    """A training of the trial failed; the message gives the reason."""


@dataclass(frozen=True, order=True)
class Replicate:
    """One training of a candidate: `seed` decides head, dropout and data order, `fold` the validation examples."""

    seed: int
    fold: int | None = None

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed} fold {self.fold + 1}"

    @classmethod
    def parse(cls, text: str) -> Replicate:
        """Return the replicate whose `str` is `text`."""
        words = text.split()
        return cls(int(words[1]), int(words[3]) - 1 if len(words) > 2 else None)


def replicates_of(seeds: Sequence[int], folds: int | None) -> tuple[Replicate, ...]:
    """Return every seed on every fold; without folds, every seed on the validation split."""
    return tuple(Replicate(seed, fold) for seed in seeds for fold in (range(folds) if folds else (None,)))


def counted(replicates: Sequence[Replicate]) -> str:
    """Return the replicates in words: `3 seeds`, `5 folds`, `2 seeds × 5 folds`."""
    seeds, folds = len({r.seed for r in replicates}), len({r.fold for r in replicates} - {None})
    parts = [(seeds, "seed")] if seeds > 1 or not folds else []
    parts += [(folds, "fold")] if folds else []
    return " × ".join(f"{count} {noun}" if count == 1 else f"{count} {noun}s" for count, noun in parts)


@dataclass(frozen=True)
class Candidate:
    """What a trial trains: a policy, compared by its spec, and a learning rate where the search varies it."""

    policy: Policy = field(compare=False)
    learning_rate: float | None = None
    scenario: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenario", str(self.policy))

    def __str__(self) -> str:
        return self.scenario if self.learning_rate is None else f"{self.scenario} at {self.learning_rate:g}"


@dataclass(frozen=True)
class Measurement:
    """The result of one training."""

    score: float
    seconds: float
    saved: float = 0.0  # the work that rows of earlier trials saved, as a share of a full fine-tuning
    memory: int | None = None  # peak, in bytes


class Superseded(Exception):
    """The trial need not be run, because another one does the same work."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to be queued; `params` are what the study shows for it."""

    candidate: Candidate
    replicates: Sequence[Replicate]
    role: Role
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, Any]:
        """The user attributes of the trial."""
        rate = self.candidate.learning_rate
        return {
            SCENARIO: self.candidate.scenario,
            **({} if rate is None else {RATE: rate}),
            REPLICATES: [str(replicate) for replicate in self.replicates],
            ROLE: self.role,
        }


def work_key(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key under which two trials do the same work."""
    return (attributes.get(SCENARIO), attributes.get(RATE), tuple(attributes.get(REPLICATES, ())))


class TrialQueue:
    """Runs the trials that `plan` asks for until none is left or running elsewhere.

    A worker claims a trial by Optuna's change of its state from waiting to running, which only one worker can make.
    If two workers queue the same work, the first of the equal trials counts and the others fail without training.
    A sampled search wants `samples` trials in all; `sample` returns what a new one trains.
    """

    def __init__(
        self,
        study: optuna.Study,
        plan: Callable[[], Sequence[PlannedTrial]],
        sample: Callable[[Trial], PlannedTrial] | None = None,
        samples: int = 0,
    ) -> None:
        self.study = study
        self.ran = 0  # trials begun by this object
        self._plan, self._sample, self._samples = plan, sample, samples
        self._stale = StaleTrials(study)

    def prepare(self) -> tuple[int, int]:
        """Queue planned trials that have no trial yet, or only failed ones; return how many are planned and done."""
        trials, planned = self._trials(), self._plan()
        self._enqueue(planned, [trial for trial in trials if trial.state in LIVE])
        done = {work_key(trial.user_attrs) for trial in trials if trial.state in DONE}
        return len(planned), sum(work_key(item.attributes) in done for item in planned)

    def left(self) -> list[Candidate]:
        """Return the planned candidates that have no finished trial, once for each training."""
        done = {work_key(trial.user_attrs) for trial in self._trials() if trial.state in DONE}
        todo = [item for item in self._plan() if work_key(item.attributes) not in done]
        return [item.candidate for item in todo for _ in item.replicates]

    def work(self, objective: Callable[[Trial], Value], after: Callable[[], None] = lambda: None) -> None:
        """Run trials until every planned one is done or failed; call `after` after each trial."""
        while True:
            self._stale.requeue()
            trials = self._trials()
            added = self._enqueue(self._plan(), trials)
            states = {trial.state for trial in trials}
            counted = sum(trial.state in LIVE or ERROR in trial.user_attrs for trial in trials)
            if added or counted < self._samples or TrialState.WAITING in states:
                self._run_one(objective)
                after()
            elif TrialState.RUNNING in states:
                time.sleep(POLL_SECONDS)
            else:
                return

    def _enqueue(self, planned: Sequence[PlannedTrial], known: Sequence[FrozenTrial]) -> bool:
        """Queue the planned trials that are not `known`; return whether there were any."""
        keys = {work_key(trial.user_attrs) for trial in known}
        missing = [item for item in planned if work_key(item.attributes) not in keys]
        for item in missing:
            self.study.enqueue_trial(item.params, user_attrs=item.attributes)
        return bool(missing)

    def _run_one(self, objective: Callable[[Trial], Value]) -> None:
        trial = self.study.ask()
        value, state = None, TrialState.FAIL
        try:
            with heartbeat(trial):
                self._claim(trial)
                self.ran += 1
                try:
                    value, state = objective(trial), TrialState.COMPLETE
                except TrialFailed as error:
                    trial.set_user_attr(ERROR, str(error))
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except (Superseded, UpdateFinishedTrialError) as error:
            logger.debug("Trial %d failed: %s", trial.number, error)
        finally:
            try:
                # Without a state, Optuna fails a trial whose value is not a number.
                self.study.tell(trial, value, None if state == TrialState.COMPLETE else state)
            except (ValueError, UpdateFinishedTrialError):
                logger.warning("Trial %d was given to another worker, because its heartbeat had stopped.", trial.number)

    def _claim(self, trial: Trial) -> None:
        """Raise `Superseded` for a trial that need not be run; say what a sampled trial trains."""
        if SCENARIO in trial.user_attrs:
            key = work_key(trial.user_attrs)
            for other in self._trials():
                if other.number < trial.number and other.state in LIVE and work_key(other.user_attrs) == key:
                    raise Superseded(f"trial {other.number} is the same")
        elif self._sample is None:
            raise Superseded("another worker took the last waiting trial")
        else:
            for name, value in self._sample(trial).attributes.items():
                trial.set_user_attr(name, value)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)
