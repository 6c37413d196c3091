"""preflight: what whole runs would cost, from a few real steps; beside whole runs that were measured."""

import dataclasses
import time

import pytest

from adaptivefreeze.comparison import StudySettings
from adaptivefreeze.comparison.preflight import preflight, train_measured
from adaptivefreeze.data import load_task

SETTINGS = StudySettings(epochs=5, batch_size=8, learning_rate=1e-3, device="cpu")


def test_every_scenario_has_a_forecast(task):
    found = preflight(task, SETTINGS)
    assert [f.scenario for f in found] == ["nothing", "lora", "bottom-up:0.5", "side"]
    assert [f.failure for f in found] == [None] * 4
    assert all(f.seconds > f.filling_seconds >= 0 for f in found)
    assert [f.cache_bytes > 0 for f in found] == [f.filling_seconds > 0 for f in found] == [False, False, True, True]


def test_time_grows_with_the_steps_and_the_cache_only_with_the_examples(task):
    short, long = (
        preflight(task, dataclasses.replace(SETTINGS, epochs=epochs), ["bottom-up:2"])[0] for epochs in (2, 100)
    )
    assert long.seconds > 10 * short.seconds
    assert long.cache_bytes == short.cache_bytes > 0
    once = preflight(task, dataclasses.replace(SETTINGS, epochs=1), ["bottom-up:2"])[0]
    assert (once.cache_bytes, once.filling_seconds) == (0, 0)  # the cache is disabled: filling it does not pay
    capped = dataclasses.replace(SETTINGS, epochs=100, training_arguments={"max_steps": 2})
    assert preflight(task, capped, ["nothing"])[0].seconds < long.seconds / 10


def test_what_is_not_possible_is_said_and_the_others_are_measured(task):
    impossible, full = preflight(task, SETTINGS, ["bottom-up:99", "nothing"])
    assert "99" in impossible.failure
    assert (impossible.seconds, full.failure) == (0.0, None)
    assert full.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["bottom-up:2", "bottom-up:4", "side"])
def test_a_whole_run_costs_about_what_was_predicted(scenario, tmp_path):
    task = load_task("demo", model="demo", max_length=64)
    settings = StudySettings(epochs=3, batch_size=16, device="cpu")
    predicted = preflight(task, settings, [scenario], clock=time.process_time)[0]
    measured = train_measured(scenario, task, settings.arguments(str(tmp_path), seed=0), clock=time.process_time)
    assert predicted.seconds == pytest.approx(sum(measured.step_seconds), rel=0.4)
    assert predicted.peak_memory_bytes == pytest.approx(measured.peak_memory_bytes, rel=0.4)
    assert predicted.cache_bytes == pytest.approx(measured.cache.memory_bytes, rel=0.15)
