"""Queue: the trials of an Optuna study, handed out so that each is run once, by any number of workers."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from .objective import Candidate, TrialFailed
from .storage import WORKER, this_worker
from .units import Unit

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
DONE = (TrialState.COMPLETE, TrialState.PRUNED)

SCENARIO, RATE, UNITS, ROLE, ERROR = "scenario", "learning rate", "units", "role", "failed because"

Wanted = Callable[[Sequence[FrozenTrial]], Sequence["Order"]]
Sample = Callable[[Trial], "Order"]
Value = float | tuple[float, float]


class Superseded(Exception):
    """The trial need not be run: another one stands for it."""


class Order:
    """A trial to be queued: what is tried, on which units, and how the study shows it."""

    def __init__(
        self,
        candidate: Candidate,
        units: Sequence[Unit],
        role: str,
        params: dict[str, Any] | None = None,
        space: dict[str, BaseDistribution] | None = None,
    ) -> None:
        self.params, self.space = params or {}, space or {}
        self.attributes: dict[str, Any] = {
            SCENARIO: candidate.scenario,
            **({} if candidate.learning_rate is None else {RATE: candidate.learning_rate}),
            UNITS: [str(unit) for unit in units],
            ROLE: role,
        }
        self.key = key(self.attributes)


def key(attributes: Any) -> tuple[Any, ...]:
    """Two trials with equal keys are the same work."""
    return (attributes.get(SCENARIO), attributes.get(RATE), tuple(attributes.get(UNITS, ())))


def candidate_of(trial: Trial | FrozenTrial) -> Candidate:
    """What a queued trial tries."""
    return Candidate(trial.user_attrs[SCENARIO], trial.user_attrs.get(RATE))


class Queue:
    """Hands out what `wanted` asks for, given all trials so far, until nothing is left and nobody is running any.

    A trial is claimed by Optuna's own change of state from waiting to running, which one worker alone can make. Two
    workers that queue the same work at the same moment do no harm: of equal trials the first counts, and the others
    fail untried. The trial of a worker that died is queued again by whoever notices first.

    Where `samples` are asked for, that many trials in all are wanted, queued ones included: the study's sampler
    chooses the others, through `sample`, which says what a trial tries.
    """

    def __init__(self, study: optuna.Study, wanted: Wanted, sample: Sample | None = None, samples: int = 0) -> None:
        self.study = study
        self.ran = 0  # trials begun here
        self._wanted = wanted
        self._sample, self._samples = sample, samples

    def prepare(self) -> tuple[int, int]:
        """Queue what is wanted and has no trial yet, or only failed ones; how many are wanted and how many done."""
        trials = self._trials()
        live = {key(t.user_attrs) for t in trials if t.state in LIVE}
        orders = self._wanted(trials)
        for order in orders:
            if order.key not in live:
                self._add(order)
        done = {key(t.user_attrs) for t in trials if t.state in DONE}
        return len(orders), sum(order.key in done for order in orders)

    def work(self, objective: Callable[[Trial], Value], after: Callable[[], None] = lambda: None) -> None:
        """Run trials until all that is wanted is done, or failed; `after` is called as each of them is over."""
        with quiet():
            while True:
                optuna.storages.fail_stale_trials(self.study)
                trials = self._trials()
                known = {key(t.user_attrs) for t in trials}
                missing = [order for order in self._wanted(trials) if order.key not in known]
                for order in missing:
                    self._add(order)
                states = {t.state for t in trials}
                counted = sum(t.state in LIVE or ERROR in t.user_attrs for t in trials)
                if missing or counted < self._samples or TrialState.WAITING in states:
                    self._run_one(objective)
                    after()
                elif TrialState.RUNNING in states:
                    time.sleep(POLL_SECONDS)
                else:
                    return

    def _run_one(self, objective: Callable[[Trial], Value]) -> None:
        def claimed(trial: Trial) -> Value:
            trial.set_user_attr(WORKER, this_worker())
            if SCENARIO in trial.user_attrs:
                self._refuse_superseded(trial)
            elif self._sample is None:
                raise Superseded("another worker took the last waiting trial")
            else:
                for name, value in self._sample(trial).attributes.items():
                    trial.set_user_attr(name, value)
            self.ran += 1
            return objective(trial)

        try:
            self.study.optimize(claimed, n_trials=1, catch=(TrialFailed, Superseded))
        except UpdateFinishedTrialError:
            # This process was silent for so long that others took it for dead and the trial for theirs.
            logger.warning("A trial of this worker was given to another one, because it had not been heard of.")

    def _refuse_superseded(self, trial: Trial) -> None:
        mine = key(trial.user_attrs)
        for other in self._trials():
            if other.number < trial.number and other.state in LIVE and key(other.user_attrs) == mine:
                raise Superseded(f"trial {other.number} is the same")

    def _add(self, order: Order) -> None:
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=order.params,
                distributions=order.space,
                user_attrs=order.attributes,
            )
        )

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's line a trial and its notes on what is experimental: the search reports by itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
