"""The first plot of a study: macro F1 against training time. What it shows is computed apart from how it is drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One scenario: `seconds` of training and `score` with their spreads over seeds (0 for one seed)."""

    scenario: str
    family: str
    seconds: float
    score: float
    seconds_sd: float
    score_sd: float
    on_front: bool


@dataclass(frozen=True)
class TradeOff:
    """Points in order of time; of those on the front none is beaten in time without losing score, or in score
    without losing time."""

    title: str
    points: tuple[Point, ...]


def trade_off(summary: Summary) -> TradeOff:
    """What the plot shows: every scenario with a result."""
    rows = [
        (row.scenario, row.train_seconds, row.macro_f1)
        for row in summary.rows
        if row.train_seconds is not None and row.macro_f1 is not None
    ]
    places = [(seconds.mean, score.mean) for _, seconds, score in rows]
    points = [
        Point(
            scenario=scenario,
            family=scenario.partition(":")[0],
            seconds=seconds.mean,
            score=score.mean,
            seconds_sd=seconds.sd or 0.0,
            score_sd=score.sd or 0.0,
            on_front=not any(_beats(other, (seconds.mean, score.mean)) for other in places),
        )
        for scenario, seconds, score in rows
    ]
    points.sort(key=lambda point: point.seconds)
    return TradeOff(f"data set {summary.task.dataset}, model {summary.model.name}", tuple(points))


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether `one` (seconds, score) is nowhere worse than `other` and somewhere better."""
    return one != other and one[0] <= other[0] and one[1] >= other[1]


def draw(info: TradeOff) -> Figure:
    """`info` as a figure that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    families = list(dict.fromkeys(sorted(point.family for point in info.points)))
    for index, family in enumerate(families):
        points = [point for point in info.points if point.family == family]
        axes.errorbar(
            [point.seconds for point in points],
            [point.score for point in points],
            xerr=[point.seconds_sd for point in points],
            yerr=[point.score_sd for point in points],
            fmt="osD^vP*X"[index % 8],
            label=family,
            capsize=3,
        )
    front = [point for point in info.points if point.on_front]
    axes.plot([p.seconds for p in front], [p.score for p in front], color="0.7", linewidth=1, zorder=0, label="front")
    for point in info.points:
        axes.annotate(
            point.scenario.partition(":")[2].split(",")[0] or point.scenario,
            (point.seconds, point.score),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize="small",
        )
    axes.set(xlabel="training time (s)", ylabel="macro F1 on the test split", title=info.title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    if info.points:
        axes.legend()
    return figure


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, the same bytes for the same figure."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "adaptivefreeze", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
