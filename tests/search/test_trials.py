"""The trial queue, with objectives that train nothing."""

import logging

import optuna
import pytest

from adaptivefreeze import BottomUp
from adaptivefreeze.search.trials import (
    Candidate,
    PlannedTrial,
    Replicate,
    TrialFailed,
    TrialQueue,
    counted,
    replicates_of,
)

STATE = optuna.trial.TrialState


def queue_of(*depths):
    planned = [PlannedTrial(Candidate(BottomUp(depth)), [Replicate(0)], "depth") for depth in depths]
    queue = TrialQueue(optuna.create_study(direction="maximize"), lambda: planned)
    queue.prepare()
    return queue


def states(queue):
    return [trial.state for trial in queue.study.trials]


def test_each_planned_trial_is_run_once_in_order():
    queue = queue_of(0, 2)
    ran = []
    queue.work(lambda trial: ran.append(trial.user_attrs["scenario"]) or 0.5)
    queue.work(lambda trial: ran.append(trial.user_attrs["scenario"]) or 0.5)
    assert ran == ["bottom-up:0", "bottom-up:2"]
    assert (states(queue), queue.ran) == ([STATE.COMPLETE] * 2, 2)


def test_a_failed_or_pruned_trial_does_not_stop_the_others():
    def objective(trial):
        if trial.number == 0:
            raise TrialFailed("no memory")
        if trial.number == 1:
            raise optuna.TrialPruned
        return float("nan") if trial.number == 2 else 0.5

    queue = queue_of(0, 1, 2, 3)
    with pytest.warns(UserWarning, match="nan"):
        queue.work(objective)
    assert states(queue) == [STATE.FAIL, STATE.PRUNED, STATE.FAIL, STATE.COMPLETE]


def test_a_trial_that_another_worker_took_over_does_not_stop_the_search(caplog):
    queue = queue_of(0, 1)

    def objective(trial):
        if trial.number == 0:
            queue.study.tell(trial.number, state=STATE.FAIL)  # as another worker does with a stale trial
            trial.set_user_attr("scores", [0.5])
        return 0.5

    with caplog.at_level(logging.WARNING):
        queue.work(objective)
    assert states(queue) == [STATE.FAIL, STATE.COMPLETE]
    assert "Trial 0 was given to another worker" in caplog.text


def test_ctrl_c_fails_the_current_trial_and_is_raised():
    def objective(trial):
        raise KeyboardInterrupt

    queue = queue_of(0, 1)
    with pytest.raises(KeyboardInterrupt):
        queue.work(objective)
    assert states(queue) == [STATE.FAIL, STATE.WAITING]


def test_units_are_named_and_counted():
    replicates = replicates_of((0, 7), 3)
    assert len(replicates) == 6
    assert [Replicate.parse(str(replicate)) for replicate in (*replicates, Replicate(4))] == [*replicates, Replicate(4)]
    assert counted(replicates) == "2 seeds × 3 folds"
    assert counted(replicates_of((0,), 3)) == "3 folds"
    assert counted(replicates_of((0, 1), None)) == "2 seeds"
