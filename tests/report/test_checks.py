"""Warnings about times and scores."""

from dataclasses import replace

import pytest
from results import TASK, UNFROZEN, made

from adaptivefreeze.comparison.result import RunResult, Timing
from adaptivefreeze.report.summary import summarize_runs


def full(scenario, seed=0, seconds=20.0, **changes):
    return made(scenario, seed, seconds=seconds, timeline=UNFROZEN, predicted_step_ratio=1.0, **changes)


def warned(*runs):
    return " ".join(summarize_runs(runs).warnings)


def test_the_same_work_in_very_different_times_withholds_every_speedup():
    runs = [full("bottom-up:0", seconds=17.7), full("top-down:0", seconds=127.8), made("bottom-up:2", seconds=14.0)]
    summary = summarize_runs(runs)
    assert "bottom-up:0 (seed 0) took 17.7 s, top-down:0 (seed 0) 127.8 s" in summary.warnings[0]
    assert "No speedup is given" in summary.warnings[1]
    assert all(row.speedup is None for row in summary.rows)
    assert summary.answer.startswith("No speedup can be given")
    assert "×" not in summary.answer


def test_the_same_work_in_somewhat_different_times_is_a_warning():
    summary = summarize_runs([full("nothing"), full("nothing", 1, 26.0), made("bottom-up:2")])
    assert "differ in time: nothing (seed 0) took 20.0 s, nothing (seed 1) 26.0 s" in summary.warnings[0]
    assert summary.rows[1].speedup is not None


def test_scenarios_that_froze_the_same_in_different_times_are_a_warning_and_no_more():
    runs = [full("nothing"), full("autofreeze", seconds=40.0)]
    summary = summarize_runs(runs)
    assert "differ in time" in summary.warnings[0]
    assert summary.rows[1].speedup is not None
    other = replace(runs[1], steps=40)
    assert "differ in time" not in warned(runs[0], other)
    elsewhere = replace(runs[1], environment={"device": "cuda"})
    assert "differ in time" not in warned(runs[0], elsewhere)


def test_times_that_agree_give_no_warning():
    assert warned(full("nothing"), full("nothing", 1, 21.0), made(), made(seed=1, seconds=10.4)) == ""


@pytest.mark.parametrize(("load", "busy"), [(2.4, False), (3.1, True)])
def test_a_busy_machine_is_named(load, busy):
    timing = Timing(0.5, 0.4, 0.6, load_average=load)
    runs = [full("nothing"), made(timing=timing, environment={**made().environment, "cores": 2})]
    assert ("busy during 1 of 2 runs (load average up to 3.1 on 2 cores)" in warned(*runs)) == busy
    assert "busy" not in warned(*(replace(run, settings={"clock": "processor"}) for run in runs))


@pytest.mark.parametrize(("seconds", "far"), [(10.0, False), (4.0, True), (18.0, True)])
def test_a_speedup_far_from_the_prediction_is_named(seconds, far):
    text = warned(full("nothing"), made("bottom-up:2", seconds=seconds))
    assert (f"bottom-up:2: measured {20 / seconds:.1f}×, predicted 2.0×" in text) == far


def test_time_to_quality_below_the_resolution_of_the_split_is_named():
    counts = {"O": 900, "B-LOC": 40}
    task = replace(TASK, label_counts={"validation": counts, "test": counts})
    text = warned(full("nothing", task=task), made(task=task))
    assert "resolves macro F1 to ± 3.2 points (standard error), more than the 0.2 points" in text
    large = replace(TASK, label_counts={name: dict.fromkeys(counts, 10**6) for name in ("validation", "test")})
    assert warned(full("nothing", task=large), made(task=large)) == ""


def test_timing_and_signals_are_stored_and_older_results_have_none():
    run = made(timing=Timing.of([0.1, 0.2, 0.3, 9.0], 1.5))
    assert run.timing == Timing(0.25, pytest.approx(0.175), pytest.approx(2.475), 1.5)
    value = run.to_json()
    assert RunResult.from_json(value).timing.median == 0.25
    del value["timing"], value["signals"], value["task"]["label_counts"]
    assert RunResult.from_json(value).timing is None
