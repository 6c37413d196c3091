"""The trial queue: trials of an Optuna study, each run once by any number of workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from .objective import Candidate, Measurement, Replicate, TrialFailed
from .storage import StaleTrials, heartbeat, quiet_optuna

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
DONE = (TrialState.COMPLETE, TrialState.PRUNED)

# User attributes of a trial.
SCENARIO, RATE, REPLICATES, ROLE, ERROR = "scenario", "learning rate", "replicates", "role", "failed because"
SCORES, SECONDS, SAVED, MEMORY = "scores", "train seconds", "share of a full run saved", "peak memory bytes"

# Values of ROLE.
DEPTH, BASELINE, SAMPLE, CHOSEN = "depth", "baseline", "sample", "chosen"

Value = float | tuple[float, float]


def record(trial: Trial, done: Sequence[Measurement]) -> None:
    """Store the measurements of a trial so far."""
    for name, field in ((SCORES, "score"), (SECONDS, "seconds"), (SAVED, "saved"), (MEMORY, "memory")):
        trial.set_user_attr(name, [getattr(measured, field) for measured in done])


class Superseded(Exception):
    """The trial need not be run, because another one does the same work."""


class PlannedTrial:
    """A trial to be queued; `params` and their `distributions` are what the study shows for it."""

    def __init__(
        self,
        candidate: Candidate,
        replicates: Sequence[Replicate],
        role: str,
        params: dict[str, Any] | None = None,
        distributions: dict[str, BaseDistribution] | None = None,
    ) -> None:
        self.params, self.distributions = params or {}, distributions or {}
        self.attributes: dict[str, Any] = {
            SCENARIO: candidate.scenario,
            **({} if candidate.learning_rate is None else {RATE: candidate.learning_rate}),
            REPLICATES: [str(replicate) for replicate in replicates],
            ROLE: role,
        }
        self.key = work_key(self.attributes)


def work_key(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key under which two trials do the same work."""
    return (attributes.get(SCENARIO), attributes.get(RATE), tuple(attributes.get(REPLICATES, ())))


class TrialQueue:
    """Runs the trials that `plan` asks for, given all trials so far, until none is left or running elsewhere.

    A worker claims a trial by Optuna's change of its state from waiting to running, which only one worker can make.
    If two workers queue the same work at the same time, the first of the equal trials counts and the others fail
    without training. The trial of a dead worker is queued again by the first worker that notices.

    A sampled search wants `samples` trials in all, planned ones included; `sample` returns what a new trial of the
    study's sampler trains.
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
        trials = self._trials()
        live = {work_key(trial.user_attrs) for trial in trials if trial.state in LIVE}
        done = {work_key(trial.user_attrs) for trial in trials if trial.state in DONE}
        planned = self._plan()
        self._add([item for item in planned if item.key not in live])
        return len(planned), sum(item.key in done for item in planned)

    def work(self, objective: Callable[[Trial], Value], after: Callable[[], None] = lambda: None) -> None:
        """Run trials until every planned one is done or failed; call `after` after each trial."""
        with quiet_optuna():
            while True:
                self._stale.requeue()
                trials = self._trials()
                known = {work_key(trial.user_attrs) for trial in trials}
                missing = [item for item in self._plan() if item.key not in known]
                self._add(missing)
                states = {trial.state for trial in trials}
                counted = sum(trial.state in LIVE or ERROR in trial.user_attrs for trial in trials)
                if missing or counted < self._samples or TrialState.WAITING in states:
                    self._run_one(objective)
                    after()
                elif TrialState.RUNNING in states:
                    time.sleep(POLL_SECONDS)
                else:
                    return

    def _run_one(self, objective: Callable[[Trial], Value]) -> None:
        trial = self.study.ask()
        value, state = None, TrialState.FAIL
        try:
            with heartbeat(trial):
                self._prepare_trial(trial)
                self.ran += 1
                value, state = objective(trial), TrialState.COMPLETE
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except (TrialFailed, Superseded, UpdateFinishedTrialError) as error:
            logger.debug("Trial %d failed: %s", trial.number, error)
        finally:
            try:
                # Without a state, Optuna fails a trial whose value is not a number.
                self.study.tell(trial, value, None if state == TrialState.COMPLETE else state)
            except (ValueError, UpdateFinishedTrialError):
                logger.warning("Trial %d was given to another worker, because its heartbeat had stopped.", trial.number)

    def _prepare_trial(self, trial: Trial) -> None:
        """Say what the trial trains, unless it was planned."""
        if SCENARIO in trial.user_attrs:
            self._refuse_superseded(trial)
        elif self._sample is None:
            raise Superseded("another worker took the last waiting trial")
        else:
            for name, found in self._sample(trial).attributes.items():
                trial.set_user_attr(name, found)

    def _refuse_superseded(self, trial: Trial) -> None:
        mine = work_key(trial.user_attrs)
        for other in self._trials():
            if other.number < trial.number and other.state in LIVE and work_key(other.user_attrs) == mine:
                raise Superseded(f"trial {other.number} is the same")

    def _add(self, planned: Sequence[PlannedTrial]) -> None:
        for item in planned:
            self.study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=item.params,
                    distributions=item.distributions,
                    user_attrs=item.attributes,
                )
            )

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)
