"""What the plots show, and that it is drawn."""

import io

from results import made

from adaptivefreeze.report.curves import draw as draw_curves
from adaptivefreeze.report.curves import validation_curves
from adaptivefreeze.report.plot import draw, svg, trade_off
from adaptivefreeze.report.summary import Summary

SUMMARY = Summary.of(
    [
        made("nothing", seconds=20.0, macro_f1=0.9),
        made("bottom-up:1", seconds=15.0, macro_f1=0.8),
        made("bottom-up:2", seconds=12.0, macro_f1=0.85),
        made("head-only", seconds=12.0, macro_f1=0.5),
    ]
)


def test_the_front_holds_what_nothing_beats():
    points = {point.scenario: point for point in trade_off(SUMMARY).points}
    assert [name for name, point in points.items() if point.on_front] == ["bottom-up:2", "nothing"]
    assert points["bottom-up:1"].family == "bottom-up"


def test_every_scenario_is_drawn_and_the_drawing_is_repeatable():
    once, again = (svg(draw(trade_off(SUMMARY))) for _ in range(2))
    assert once == again
    assert once.startswith("<svg")
    assert "head-only" in once
    assert "macro F1 on the test split" in once


def test_a_figure_can_be_saved_as_png():
    image = io.BytesIO()
    draw(trade_off(SUMMARY)).savefig(image, format="png")
    assert image.getvalue().startswith(b"\x89PNG")


def test_curves_are_of_runs_with_two_evaluations_at_least():
    summary = Summary.of([made("nothing"), made("nothing", 1), made("head-only", curve=((3.0, 0.5),))])
    info = validation_curves(summary)
    assert [(line.scenario, line.seed) for line in info.lines] == [("nothing", 0), ("nothing", 1)]
    assert info.lines[0].points == ((5.0, 0.7), (10.0, 0.8))
    drawn = draw_curves(info).axes[0]
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == ["nothing"]
