"""Summary: rows from runs, compared with full fine-tuning."""

from statistics import stdev

import pytest
from results import failed, made

from adaptivefreeze.comparison.result import ValidationPoint
from adaptivefreeze.report.formats import markdown
from adaptivefreeze.report.row import Spread, scenario_key
from adaptivefreeze.report.summary import summarize_runs


def row(summary, scenario):
    return next(row for row in summary.rows if row.scenario == scenario)


def test_speedup_is_against_the_mean_of_the_unfrozen_runs():
    summary = summarize_runs(
        [made("bottom-up:0", seconds=22.0), made("top-down:0", seconds=18.0), made("bottom-up:2", seconds=10.0)]
    )
    assert row(summary, "bottom-up:2").speedup == Spread(2.0)
    assert row(summary, "bottom-up:0").speedup.mean == pytest.approx(20 / 22)
    assert row(summary, "bottom-up:2").predicted_speedup == Spread(2.0)


@pytest.mark.parametrize("spec", ["nothing", "bottom-up:0.0", "top-down:0.1"])
def test_full_fine_tuning_is_the_reference_whatever_its_spelling(spec):
    summary = summarize_runs([made(spec, seconds=20.0), made("bottom-up:2", seconds=10.0)])
    assert row(summary, "bottom-up:2").speedup == Spread(2.0)
    assert [row.highlighted for row in summary.rows] == [row.scenario == spec for row in summary.rows]


def test_without_an_unfrozen_run_there_is_no_speedup_and_a_warning_says_so():
    summary = summarize_runs([made("bottom-up:2"), made("head-only")])
    assert all(row.speedup is None for row in summary.rows)
    assert any("Speedups are missing" in warning for warning in summary.warnings)


def test_seeds_give_a_mean_and_a_sample_standard_deviation():
    summary = summarize_runs([made(seed=s, macro_f1=f1) for s, f1 in enumerate((0.80, 0.82, 0.87))])
    assert summary.rows[0].seeds == (0, 1, 2)
    assert summary.rows[0].macro_f1.mean == pytest.approx(0.83)
    assert summary.rows[0].macro_f1.sd == pytest.approx(stdev((0.80, 0.82, 0.87)))


def test_time_to_quality_is_the_first_evaluation_within_a_fifth_of_a_point():
    full = made("nothing", curve=((4.0, 0.70), (8.0, 0.900)))
    near = made("bottom-up:2", curve=((2.0, 0.897), (4.0, 0.8985), (6.0, 0.91)))
    never = made("head-only", curve=((1.0, 0.5), (2.0, 0.6)))
    summary = summarize_runs([full, near, never])
    assert row(summary, "bottom-up:2").seconds_to_quality == Spread(4.0)
    assert row(summary, "nothing").seconds_to_quality == Spread(8.0)
    assert row(summary, "head-only").seconds_to_quality is None


def test_time_to_quality_compares_within_a_seed():
    runs = [
        made("nothing", 0, curve=((8.0, 0.9),)),
        made("nothing", 1, curve=((8.0, 0.5),)),
        made("bottom-up:2", 0, curve=((3.0, 0.6), (5.0, 0.9))),
        made("bottom-up:2", 1, curve=((3.0, 0.6), (5.0, 0.9))),
    ]
    both = row(summarize_runs(runs), "bottom-up:2")
    assert both.seconds_to_quality == Spread(4.0, stdev((5.0, 3.0)))
    assert both.speedup_to_quality == Spread((8 / 5 + 8 / 3) / 2, stdev((8 / 5, 8 / 3)))


def test_a_seed_that_never_reaches_the_quality_is_counted_and_not_averaged():
    runs = [
        made("nothing", 0, curve=((4.0, 0.9), (8.0, 0.9))),
        made("nothing", 1, curve=((8.0, 0.9),)),
        made("bottom-up:2", 0, curve=((2.0, 0.9),)),
        made("bottom-up:2", 1, curve=((2.0, 0.5),)),
    ]
    summary = summarize_runs(runs)
    once = row(summary, "bottom-up:2")
    assert once.reached == (0,)
    assert once.seconds_to_quality == Spread(2.0)
    assert once.speedup_to_quality == Spread(2.0)
    assert "| 2.0 (1 of 2) | 2.00 |" in markdown([summary])
    assert row(summary, "nothing").reached == (0, 1)
    assert row(summary, "nothing").speedup_to_quality == Spread(1.0, 0.0)


def test_time_to_quality_by_entity_f1_is_counted_apart():
    def curve(*points):
        return tuple(ValidationPoint(i, float(i), 0.9, at, entity_f1=score) for i, (at, score) in enumerate(points, 1))

    runs = [
        made("nothing", 0, validation=curve((4.0, 0.7), (8.0, 0.8))),
        made("nothing", 1, validation=curve((8.0, 0.8))),
        made("bottom-up:2", 0, validation=curve((2.0, 0.7), (5.0, 0.799))),
        made("bottom-up:2", 1, validation=curve((2.0, 0.7))),
    ]
    found = row(summarize_runs(runs), "bottom-up:2")
    assert found.reached == (0, 1)
    assert found.entity_reached == (0,)
    assert found.speedup_to_entity_quality == Spread(8 / 5)
    assert "1.60 (1 of 2)" in markdown([summarize_runs(runs)])


def test_a_failed_run_has_a_row_with_its_seed():
    summary = summarize_runs([failed("bottom-up:1", 3)])
    assert summary.rows[0].failed == (3,)
    assert summary.rows[0].macro_f1 is None


def test_rows_are_sorted_by_policy_and_by_number():
    names = ["top-down:3", "bottom-up:12", "bottom-up:9", "head-only", "nothing", "bottom-up:0.5", "unheard-of:1"]
    ordered = sorted(names, key=scenario_key)
    assert ordered == [
        "nothing", "bottom-up:0.5", "bottom-up:9", "bottom-up:12", "top-down:3", "head-only", "unheard-of:1",
    ]  # fmt: skip


def test_a_disabled_cache_is_a_warning():
    run = made(cache=True, cache_stats={"hits": 0, "disabled_reason": "the inputs change every epoch"})
    assert "Prefix cache disabled in bottom-up:2: the inputs change every epoch." in summarize_runs([run]).warnings


def test_different_environments_give_a_warning():
    runs = [made("nothing"), made("bottom-up:2", environment={"device": "cuda", "threads": 8})]
    assert any("different environments" in warning for warning in summarize_runs(runs).warnings)
    assert summarize_runs(runs[:1]).warnings == ()
