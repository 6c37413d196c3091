"""What the figures show, and that Matplotlib draws them."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from results import CHANGING, UNFROZEN, made, searched

from adaptivefreeze import FreezeMask
from adaptivefreeze.comparison.result import SignalRecord
from adaptivefreeze.report.drawing import draw_chart, draw_map, png, svg
from adaptivefreeze.report.figures import charts, frozen_blocks
from adaptivefreeze.report.freeze_map import MAX_MAPS, freeze_maps, frozen_units
from adaptivefreeze.report.load import summarize_search
from adaptivefreeze.report.row import Row
from adaptivefreeze.report.summary import summarize_runs

SUMMARY = summarize_runs(
    [
        made("nothing", seconds=20.0, macro_f1=0.9, timeline=UNFROZEN),
        made("bottom-up:1", seconds=15.0, macro_f1=0.8),
        made("bottom-up:2", seconds=12.0, macro_f1=0.85),
        made("head-only", seconds=12.0, macro_f1=0.5),
    ]
)


def chart(summary, key):
    return next(chart for chart in charts(summary) if chart.key == key)


def series(chart, name):
    return next(series for series in chart.series if series.name == name)


def test_the_pareto_front_holds_what_no_scenario_dominates():
    info = chart(SUMMARY, "quality-time")
    assert [(mark.x, mark.y) for mark in series(info, "Pareto front").marks] == [(12.0, 85.0), (20.0, 90.0)]
    assert [mark.label for mark in series(info, "bottom-up").marks] == ["1", "2"]
    assert series(info, "full fine-tuning").control
    assert not series(info, "head-only").control


def test_energy_is_drawn_where_it_was_measured():
    assert "quality-energy" not in [chart.key for chart in charts(SUMMARY)]
    assert chart(summarize_runs([made("nothing", energy_joules=5.0)]), "quality-energy").series[0].marks[0].x == 5.0


def test_every_scenario_is_drawn_and_equal_figures_give_equal_svg():
    once, again = (svg(draw_chart(chart(SUMMARY, "quality-time"))) for _ in range(2))
    assert once == again
    assert "head-only" in once
    assert "macro F1 on the test split" in once


def test_a_figure_can_be_saved_as_png():
    assert png(draw_chart(chart(SUMMARY, "quality-time"))).startswith(b"\x89PNG")


def test_error_bars_are_t_intervals_over_seeds():
    summary = summarize_runs([made(seed=seed, macro_f1=f1) for seed, f1 in enumerate((0.80, 0.82, 0.87))])
    (mark,) = series(chart(summary, "quality-time"), "bottom-up").marks
    half = 4.3027 * 0.0360555 / 3**0.5
    assert mark.y_error == pytest.approx((100 * (0.83 - half), 100 * (0.83 + half)), rel=1e-4)


def test_quality_against_depth_has_both_sides_and_begins_with_full_fine_tuning():
    info = chart(summarize_runs([*SUMMARY.results[:3], made("top-down:2", macro_f1=0.7)]), "quality-depth")
    assert [(mark.x, mark.y) for mark in series(info, "bottom-up").marks] == [(0, 90), (2, 80), (2, 85)]
    assert [(mark.x, mark.y) for mark in series(info, "top-down").marks] == [(0, 90), (2, 70)]
    assert info.whole
    assert info.level == (90.0, "full fine-tuning")


def test_a_curve_needs_two_evaluations_and_shows_when_the_quality_was_reached():
    runs = [
        made("nothing"),
        made("nothing", 1),
        made("head-only", curve=((3.0, 0.5),)),
        made(curve=((2.0, 0.6), (4.0, 0.81))),
    ]
    info = chart(summarize_runs(runs), "learning-curves")
    assert [one.name for one in info.series] == ["nothing", "nothing", "bottom-up:2", "time to quality"]
    assert [(mark.x, mark.y) for mark in info.series[-1].marks] == [(4.0, 81.0)]
    (legend,) = draw_chart(info).legends
    assert [text.get_text() for text in legend.get_texts()] == ["nothing", "bottom-up:2", "time to quality"]


@given(
    depth=st.shared(st.integers(1, 14), key="depth"),
    blocks=st.shared(st.integers(1, 14), key="depth").flatmap(lambda d: st.sets(st.integers(0, d - 1))),
    embeddings=st.booleans(),
    head=st.booleans(),
)
def test_a_mask_is_read_as_it_is_written(depth, blocks, embeddings, head):
    mask = FreezeMask(depth, embeddings=embeddings, blocks=blocks, head=head, parts=[("block 0", "a b|c + 7 | 9")])
    expected = {i + 1 for i in blocks} | {0 for _ in range(embeddings)} | {depth + 1 for _ in range(head)}
    assert frozen_units(mask) == expected


def test_a_unit_is_drawn_for_as_long_as_it_is_frozen():
    (run,) = freeze_maps(summarize_runs([made("validation", timeline=CHANGING), made("bottom-up:2")]))
    assert (run.title, run.steps, run.units) == (
        "validation, seed 0", 20, ("embeddings", "block 0", "block 1", "block 2", "block 3", "head"),
    )  # fmt: skip
    assert run.spans == ((0, 5, 20), (1, 5, 20), (2, 5, 10), (2, 12, 20))
    assert run.validation == ((10, 70.0), (20, 80.0))


def test_first_seeds_come_first_and_the_number_of_maps_is_limited():
    scenarios = [f"autofreeze:percentile={percentile}" for percentile in range(10, 40)]
    runs = [made(name, seed, timeline=CHANGING) for name in scenarios for seed in (1, 2)]
    found = freeze_maps(summarize_runs(runs))
    assert len(found) == MAX_MAPS
    assert {one.title.rpartition(" ")[2] for one in found} == {"1"}


def test_the_signal_of_the_policy_is_scaled_to_its_range():
    records = (
        SignalRecord(5, "gradients", {"block 0": 1.0, "head": 5.0}),
        SignalRecord(10, "gradients", {"block 0": 3.0}),
    )
    (run,) = freeze_maps(summarize_runs([made("autofreeze", timeline=CHANGING, signals=records)]))
    assert (run.signal, run.range) == ("gradients", (1.0, 5.0))
    assert run.heat == ((5, (None, 0.0, None, None, None, 1.0)), (10, (None, 0.5, None, None, None, None)))
    assert len(draw_map(run).axes) == 3


def test_the_scores_of_a_search_have_intervals_and_baselines_at_their_depth():
    shown = chart(summarize_search(searched()), "search")
    depths = series(shown, "candidates").marks
    assert [mark.x for mark in depths] == [0, 2, 4]
    assert [(mark.label, mark.x) for mark in depths if mark.label] == [("k* = k_fast, 1.7×", 2)]
    two = series(chart(summarize_search(searched(fast=searched().outcomes[2])), "search"), "candidates").marks
    assert [(mark.label, mark.x) for mark in two if mark.label] == [("k*, 1.7×", 2), ("k_fast, 5.0×", 4)]
    assert [(mark.x, mark.y) for mark in series(shown, "baselines").marks] == [(2, pytest.approx(61))]
    assert depths[0].y_error[0] < 90.5 < depths[0].y_error[1]
    assert shown.band[:2] == pytest.approx((90.15, 90.65))


@pytest.mark.parametrize(("scenario", "blocks"), [("top-down:3,embeddings=true", 3), ("head-only", 0)])
def test_a_baseline_is_drawn_at_the_depth_in_its_spec(scenario, blocks):
    assert frozen_blocks(Row(scenario=scenario)) == blocks


def drawn(summary):
    return [*map(draw_chart, charts(summary)), *map(draw_map, freeze_maps(summary))]


def test_dollar_signs_of_a_pattern_are_drawn_as_written():
    runs = [made("nothing"), made(r"modules:^a\b$|\w_$", timeline=CHANGING)]
    texts = [svg(figure) for figure in drawn(summarize_runs(runs))]
    assert sum(r"^a\b$|\w_$" in text for text in texts) >= 3


def test_no_text_of_a_figure_covers_another():
    crowd = [
        made(f"{policy}:{k}", seconds=20.0 - k / 10, macro_f1=0.9 - k / 1000, timeline=CHANGING)
        for policy in ("bottom-up", "top-down", "validation")
        for k in range(6)
    ]
    for summary in (summarize_runs(crowd), summarize_search(searched())):
        for figure in drawn(summary)[:8]:
            figure.draw_without_rendering()
            texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
            boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
            overlaps = [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]
            assert overlaps == []
