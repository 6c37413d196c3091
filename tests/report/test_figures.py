"""What the figures show, and that they are drawn."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from results import made, searched

from adaptivefreeze import FreezeMask, Timeline
from adaptivefreeze.model.timeline import Change
from adaptivefreeze.report.drawing import draw_all, draw_curves, draw_scores, draw_timelines, png, svg
from adaptivefreeze.report.figures import (
    freeze_timelines,
    frozen_blocks,
    frozen_units,
    search_scores,
    trade_off,
    validation_curves,
)
from adaptivefreeze.report.load import summarize_search
from adaptivefreeze.report.summary import Row, summarize_runs

SUMMARY = summarize_runs(
    [
        made("nothing", seconds=20.0, macro_f1=0.9),
        made("bottom-up:1", seconds=15.0, macro_f1=0.8),
        made("bottom-up:2", seconds=12.0, macro_f1=0.85),
        made("head-only", seconds=12.0, macro_f1=0.5),
    ]
)


def test_the_pareto_front_holds_what_no_scenario_dominates():
    info = trade_off(SUMMARY)
    assert [point.name for point in info.line] == ["bottom-up:2", "nothing"]
    assert {point.name: point for point in info.points}["bottom-up:1"].group == "bottom-up"


def test_every_scenario_is_drawn_and_equal_figures_give_equal_svg():
    once, again = (svg(draw_scores(trade_off(SUMMARY))) for _ in range(2))
    assert once == again
    assert once.startswith("<svg")
    assert "head-only" in once
    assert "macro F1 on the test split" in once


def test_a_figure_can_be_saved_as_png():
    assert png(draw_scores(trade_off(SUMMARY))).startswith(b"\x89PNG")


def test_a_curve_needs_two_evaluations():
    summary = summarize_runs([made("nothing"), made("nothing", 1), made("head-only", curve=((3.0, 0.5),))])
    info = validation_curves(summary)
    assert [(curve.scenario, curve.seed) for curve in info] == [("nothing", 0), ("nothing", 1)]
    assert info[0].points == ((5.0, 0.7), (10.0, 0.8))
    (legend,) = draw_curves(info, "title").legends
    assert [text.get_text() for text in legend.get_texts()] == ["nothing"]


CHANGES = [
    Change(0, FreezeMask(4), "start"),
    Change(5, FreezeMask.first(4, 2), "holds"),
    Change(10, FreezeMask.first(4, 1), "dropped"),
    Change(12, FreezeMask.first(4, 2), "holds"),
]
CHANGING = tuple(Timeline(CHANGES).to_json())


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
    (run,) = freeze_timelines(summarize_runs([made("validation", timeline=CHANGING), made("bottom-up:2")]))
    assert (run.scenario, run.steps, run.depth) == ("validation", 20, 4)
    assert run.spans == ((0, 5, 20), (1, 5, 20), (2, 5, 10), (2, 12, 20))


def test_one_seed_of_a_scenario_is_drawn():
    summary = summarize_runs([made("validation", seed, timeline=CHANGING) for seed in (2, 1)])
    assert [run.seed for run in freeze_timelines(summary)] == [1]


@pytest.mark.parametrize("count", [1, 3])
def test_every_timeline_is_in_the_drawing(count):
    runs = [made(f"autofreeze:percentile={50 + i}", timeline=CHANGING) for i in range(count)]
    drawn = draw_timelines(freeze_timelines(summarize_runs(runs)))
    assert len(drawn.axes) == count
    assert all(len(axes.collections) == 4 for axes in drawn.axes)
    assert "autofreeze:percentile=50, seed 0" in svg(drawn)


def test_the_scores_of_a_search_have_intervals_and_baselines_at_their_depth():
    def scores(result):
        summary = summarize_search(result)
        return search_scores(summary, summary.search)

    shown = scores(searched())
    assert [point.x for point in shown.line] == [0, 2, 4]
    assert [(point.label, point.x) for point in shown.line if point.label] == [("k* = k_fast, 1.7×", 2)]
    two = scores(searched(fast=searched().outcomes[2])).line
    assert [(point.label, point.x) for point in two if point.label] == [("k*, 1.7×", 2), ("k_fast, 5.0×", 4)]
    baselines = [point for point in shown.points if point.group == "baselines"]
    assert [(point.x, point.score) for point in baselines] == [(2, pytest.approx(0.61))]
    first = shown.points[0]
    assert (first.score - first.below, first.score + first.above) == pytest.approx((0.90, 0.91))


@pytest.mark.parametrize(("scenario", "blocks"), [("top-down:3,embeddings=true", 3), ("head-only", 0)])
def test_a_baseline_is_drawn_at_the_depth_in_its_spec(scenario, blocks):
    assert frozen_blocks(Row(scenario=scenario)) == blocks


def test_dollar_signs_of_a_pattern_are_drawn_as_written():
    runs = [made("nothing"), made(r"modules:^a\b$|\w_$", timeline=CHANGING)]
    for figure in draw_all(summarize_runs(runs)).values():
        assert r"^a\b$|\w_$" in svg(figure)


def test_no_text_of_a_figure_covers_another():
    crowd = [
        made(f"{policy}:{k}", seconds=20.0 - k / 10, macro_f1=0.9 - k / 1000, timeline=CHANGING)
        for policy in ("bottom-up", "top-down", "validation")
        for k in range(6)
    ]
    for summary in (summarize_runs(crowd), summarize_search(searched())):
        for figure in draw_all(summary).values():
            figure.draw_without_rendering()
            texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
            boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
            overlaps = [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]
            assert overlaps == []
