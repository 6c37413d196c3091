"""RuntimeChoice: its predictions, what it chooses by them, and a real run that it stops."""

import math

import pytest
from policies.test_conformance import stack_of
from training import make_trainer, tiny_bert

from adaptivefreeze import FreezeCallback, RequestError, RuntimeChoice
from adaptivefreeze.policies import Signals, StepCosts
from adaptivefreeze.policies.runtime_choice import energy, evenly_spaced, predicted_gains

COSTS = StepCosts(run=(1.0, 0.8, 0.6), skipped=(1.0, 0.5, 0.1), cached=True, examples_pass=10, filling=0.1)
EVEN = {"embeddings": 0.0, "block 0": 1.0, "block 1": 1.0, "head": 1.0}


def decided(policy, values, importance=EVEN, metric="f1", total=100):
    """The decision after evaluations at steps 10, 20, …, the first one that is none to go on."""
    reports = [{f"eval_{metric}": value} for value in values]
    return decided_by(policy, reports, importance, total)


def decided_by(policy, reports, importance=EVEN, total=100, steps=None):
    mask = policy.initial_mask(stack_of(2))
    for number, report in enumerate(reports, start=1):
        step = steps[number - 1] if steps else 10 * number
        signals = Signals(
            step, total, 10, step / 10, mask, 1e-3,
            importance=importance, costs=COSTS, metrics=report,
        )  # fmt: skip
        if (decision := policy.update(signals)) is not None:
            return number, decision
    return None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 4.0, 6.0, 7.0], [0.5, 0.75, 0.875]),  # each gain is half of the one before
        ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]),
        ([0.0, 1.0, 3.0], [2.0, 4.0, 6.0]),  # never growing gains
        ([0.0, 1.0, 0.0], [0.0, 0.0, 0.0]),  # alternating: none
        ([3.0, 2.0, 1.0], [-1.0, -2.0, -3.0]),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
    ],
)
def test_gains_are_predicted_from_gains(values, expected):
    assert predicted_gains(values, 3) == pytest.approx(expected)


def test_energy_counts_the_pass_that_fills_the_cache():
    assert energy(COSTS, 0, 30, moved=False) == 30
    assert energy(COSTS, 2, 30, moved=True) == pytest.approx(10 * 0.6 * 1.1 + 20 * 0.1)
    assert energy(COSTS, 2, 30, moved=False) == pytest.approx(3)
    assert energy(COSTS, 2, 5, moved=True) == pytest.approx(5 * 0.6 * 1.1)


def test_it_goes_on_while_gains_are_worth_their_energy_and_stops_when_they_are_not():
    assert decided(RuntimeChoice("f1", price=0.5), [0.1, 0.3, 0.5, 0.7]) is None
    step, decision = decided(RuntimeChoice("f1", price=0.5), [0.1, 0.3, 0.5, 0.52, 0.521])
    assert step == 4
    assert decision.stop
    assert decision.mask == RuntimeChoice().initial_mask(stack_of(2))
    assert decision.reason.startswith("stopped: f1 is predicted to gain ")


def test_it_freezes_what_has_little_importance():
    head = {"embeddings": 0.0, "block 0": 0.01, "block 1": 0.5, "head": 0.5}
    step, decision = decided(RuntimeChoice("f1", price=0.5), [0.1, 0.3, 0.5], head)
    assert (step, decision.mask.leading_blocks, decision.stop) == (3, 1, False)
    assert decided(RuntimeChoice("f1", price=0), [0.1, 0.3, 0.5], head) is None, "energy costs nothing"


def test_a_loss_is_minimized_and_the_first_evaluations_decide_nothing():
    assert decided(RuntimeChoice(price=0.5), [0.9, 0.7, 0.5], metric="loss") is None
    assert decided(RuntimeChoice(price=0.5), [0.5, 0.7, 0.9], metric="loss")[0] == 3
    assert decided(RuntimeChoice(price=0.5, first=5), [0.5, 0.7, 0.9, 0.9, 0.9], metric="loss")[0] == 5
    assert decided(RuntimeChoice(price=0.5), [0.5, math.nan, 0.7], metric="loss") is None
    with pytest.raises(RequestError, match="no evaluation reports 'f2'; there are f1"):
        decided(RuntimeChoice("f2"), [0.1])


def test_an_evaluation_close_to_another_one_does_not_count_beside_it():
    reports = [{"eval_f1": value} for value in (0.1, 0.3, 0.29, 0.5, 0.7)]
    assert decided_by(RuntimeChoice("f1", price=0.5), reports, steps=[10, 20, 21, 30, 40]) is None
    assert evenly_spaced([(10, 0.1), (20, 0.3), (21, 0.29), (30, 0.5)]) == [(10, 0.1), (21, 0.29), (30, 0.5)]
    assert evenly_spaced([(20, 0.3)]) == [(20, 0.3)]
    assert evenly_spaced([]) == []


def test_an_evaluation_of_another_data_set_decides_nothing():
    reports = [{"eval_f1": 0.1}, {"eval_other_f1": 0.9}, {"eval_f1": 0.1}, {"eval_other_f1": 0.9}, {"eval_f1": 0.1}]
    step, decision = decided_by(RuntimeChoice("f1"), reports)
    assert (step, decision.stop) == (5, True)


def test_a_run_is_stopped_and_never_frozen_below_a_ceiling_of_0(tmp_path):
    for spec in ("runtime-choice:price=1000", "runtime-choice:price=1000+ceiling:0"):
        callback = FreezeCallback(spec, cache=True)
        trainer = make_trainer(tiny_bert(), tmp_path, [callback], eval_strategy="epoch", num_train_epochs=6)
        trainer.train()
        assert trainer.state.global_step == 3 * 6
        assert callback.mask.leading_blocks == 0
