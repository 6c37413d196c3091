"""Runs of equal time: epochs predicted by the cost model and corrected by measured time."""

from dataclasses import replace

import pytest
from policies.test_conformance import stack_of

from adaptivefreeze import BottomUp, FreezeMask, Nothing, RequestError, find_blocks, parse_policy
from adaptivefreeze.comparison import FailedRun, StudyFolder, StudySettings, compare
from adaptivefreeze.comparison import run as run_module
from adaptivefreeze.comparison.equal_time import (
    ATTEMPTS,
    GIVE_UP,
    full_fine_tuning_first,
    match_training_time,
    predicted_epochs,
)
from adaptivefreeze.comparison.result import RunResult
from adaptivefreeze.model.cost import StepShape, step_ratio
from adaptivefreeze.report.formats import markdown
from adaptivefreeze.report.load import load_runs

SHAPE = StepShape(examples=8, tokens=16)


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    """A run to be given other times."""
    settings = StudySettings(epochs=1, batch_size=8, learning_rate=1e-2, device="cpu")
    folder = tmp_path_factory.mktemp("finished")
    return compare(task, scenarios=["nothing"], settings=settings, output=folder).results[0]


def timed(run, epochs, seconds):
    """`run` as if it had trained for `epochs` in `seconds`."""
    return replace(run, train_seconds=seconds, samples_per_second=epochs * run.task.train_examples / seconds)


def test_without_a_cache_epochs_are_in_proportion_to_the_step(task):
    stack = find_blocks(task.new_model(0))
    mask = FreezeMask.first(stack.depth, 2)
    assert predicted_epochs(stack, FreezeMask(stack.depth), SHAPE, 3, cache=False) == 3
    assert predicted_epochs(stack, mask, SHAPE, 3, cache=False) == pytest.approx(3 / step_ratio(stack, mask, SHAPE))


@pytest.mark.parametrize("epochs", [0.25, 1, 3])
def test_with_a_cache_the_first_epoch_costs_more_than_the_others(task, epochs):
    stack = find_blocks(task.new_model(0))
    mask = FreezeMask.first(stack.depth, 2)
    frozen, skipped = (step_ratio(stack, mask, SHAPE, cached=cached) for cached in (False, True))
    found = predicted_epochs(stack, mask, SHAPE, epochs, cache=True)
    cost = frozen * min(found, 1) + skipped * max(0, found - 1)
    assert cost == pytest.approx(epochs)


def test_the_clock_puts_the_prediction_right(finished):
    settings, asked = StudySettings(epochs=2, match="time"), []

    def train(settings, *, stop_after):
        asked.append((settings.epochs, stop_after))
        return timed(finished, settings.epochs, 4.0 * settings.epochs)

    run = match_training_time(train, settings, seconds=20.0, predicted=4.0)
    assert asked == [(4.0, GIVE_UP * 20.0), (5.0, GIVE_UP * 20.0)]
    assert (run.matched.epochs, run.matched.predicted_epochs, run.matched.attempts) == (5.0, 4.0, 2)
    assert run.settings["epochs"] == 2  # the study's own, so that its runs stand in one table


def test_an_attempt_that_takes_far_too_long_is_given_up(finished):
    def train(settings, *, stop_after):
        return timed(finished, min(settings.epochs, stop_after / 2.0), min(2.0 * settings.epochs, stop_after))

    run = match_training_time(train, StudySettings(match="time"), seconds=10.0, predicted=500.0)
    assert (run.epochs, run.train_seconds, run.matched.attempts) == (5.0, 10.0, 2)


def test_epochs_of_another_seed_are_tried_first_and_attempts_end(finished):
    asked = []

    def restless(settings, *, stop_after):
        asked.append(settings.epochs)
        return timed(finished, settings.epochs, 10.0 * (2 + len(asked) % 2))

    run = match_training_time(restless, StudySettings(match="time"), seconds=10.0, predicted=4.0, first=3.0)
    assert asked[0] == 3.0
    assert len(asked) == run.matched.attempts == ATTEMPTS


def test_a_policy_that_ends_the_run_is_left_at_that(finished):
    run = match_training_time(
        lambda settings, *, stop_after: timed(finished, 1.0, 1.0),
        StudySettings(match="time"),
        seconds=9.0,
        predicted=3.0,
    )
    assert (run.epochs, run.matched.attempts) == (1.0, 1)


def test_the_unfrozen_run_comes_first_and_is_added_where_it_is_missing():
    frozen, full = BottomUp(2), parse_policy("top-down:0.0")
    assert full_fine_tuning_first([frozen, full], stack_of(4)) == (full, frozen)
    assert full_fine_tuning_first([frozen], stack_of(4)) == (Nothing(), frozen)


def test_compare_gives_every_scenario_the_same_time(task, settings, tmp_path):
    settings = replace(settings, epochs=2, match="time")
    done = compare(task, scenarios=["bottom-up:2"], settings=settings, output=tmp_path)
    full, frozen = sorted(done.results, key=lambda run: run.order)
    assert (full.scenario, full.matched) == ("nothing", None)
    assert full.epochs == pytest.approx(2, rel=0.01)
    assert frozen.matched.reference_seconds == full.train_seconds
    assert frozen.matched.predicted_epochs > 2
    assert frozen.matched.epochs == pytest.approx(frozen.epochs)
    assert frozen.metrics is not None
    assert RunResult.from_json(frozen.to_json()) == frozen
    assert compare(task, scenarios=["bottom-up:2"], settings=settings, output=tmp_path).ran == 0
    table = markdown(load_runs([tmp_path]))
    assert "| epochs |" in table
    assert "as many as fit into the training time of full fine-tuning" in table
    with pytest.raises(RequestError, match="its match is time, not steps"):
        compare(task, scenarios=["nothing"], settings=replace(settings, match="steps"), output=tmp_path)


def test_without_a_reference_there_is_nothing_to_match(task, settings, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(run_module, "run_scenario", broken)
    done = compare(task, scenarios=["head-only"], settings=replace(settings, match="time"), output=tmp_path)
    assert len(done.failures) == 2
    stored = StudyFolder(tmp_path).find("head-only", 0)
    assert isinstance(stored, FailedRun)
    assert "no time to match, because nothing failed: RuntimeError: the machine is on fire" in stored.error


def test_match_is_steps_or_time():
    with pytest.raises(RequestError, match="--match quality is unknown: pass steps or time"):
        StudySettings(match="quality")
