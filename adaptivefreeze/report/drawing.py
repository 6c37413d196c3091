"""Draws the figures of a report with Matplotlib."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from ..model.mask import EMBEDDINGS, HEAD
from .figures import Curve, FreezeTimeline, Point, Scores, freeze_timelines, search_scores, trade_off, validation_curves
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_all(summary: Summary) -> dict[str, Figure]:
    """Return the figures that `summary` has data for, by name: `search`, or `plot`, `curves` and `timelines`."""
    if summary.search is not None:
        return {"search": draw_scores(search_scores(summary, summary.search))}
    drawn = {}
    if (scores := trade_off(summary)).points:
        drawn["plot"] = draw_scores(scores)
    if curves := validation_curves(summary):
        drawn["curves"] = draw_curves(curves, summary.subject)
    if timelines := freeze_timelines(summary):
        drawn["timelines"] = draw_timelines(timelines)
    return drawn


def draw_scores(info: Scores) -> Figure:
    """Return a Matplotlib figure of `info`."""
    figure, axes = _canvas(info.title, info.xlabel, info.ylabel)
    for index, group in enumerate(sorted({point.group for point in info.points})):
        members = [point for point in info.points if point.group == group]
        axes.errorbar(
            [point.x for point in members],
            [point.score for point in members],
            xerr=[point.x_error for point in members],
            yerr=[[point.below for point in members], [point.above for point in members]],
            fmt="osD^vP*X"[index % 8],
            label=group,
            capsize=3,
        )
    xs, scores = [point.x for point in info.line], [point.score for point in info.line]
    axes.plot(xs, scores, color="0.7", linewidth=1, zorder=0, label=info.line_label)
    if info.band is not None:
        axes.axhspan(*info.band, color="C2", alpha=0.12, label="within the tolerance")
    figure.legend(loc="outside right upper", fontsize="small")
    axes.margins(0.08)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    _label(figure, axes, [point for point in info.points if point.label])
    return figure


def draw_curves(curves: Sequence[Curve], title: str) -> Figure:
    """Return a Matplotlib figure of `curves`; all seeds of a scenario have the same colour."""
    scenarios = list(dict.fromkeys(curve.scenario for curve in curves))
    height = max(5.0, 0.25 * len(scenarios))  # the legend has one line per scenario
    figure, axes = _canvas(title, "training time (s)", "macro F1 on the validation split", height)
    for curve in curves:
        index = scenarios.index(curve.scenario)
        axes.plot(
            *zip(*curve.points, strict=True),
            color=f"C{index % 10}",
            linestyle=("-", "--", ":")[index // 10 % 3],
            marker=".",
            label=_text(curve.scenario, 30),
        )
    axes.set_xlim(left=0)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one entry per scenario
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize="small")
    return figure


def draw_timelines(info: Sequence[FreezeTimeline]) -> Figure:
    """Return a Matplotlib figure of `info`: units upwards, steps to the right, frozen units filled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 1.4 * len(info)), layout="constrained")
    for place, run in enumerate(info, 1):
        axes = figure.add_subplot(len(info), 1, place)
        for unit, begin, end in run.spans:
            axes.broken_barh([(begin, end - begin)], (unit - 0.45, 0.9), color="C0")
        axes.set(xlim=(0, run.steps), ylim=(-0.6, run.depth + 1.6))
        axes.set_yticks([0, (run.depth + 1) / 2, run.depth + 1], [EMBEDDINGS, "blocks", HEAD], fontsize="small")
        axes.set_title(_text(f"{run.scenario}, seed {run.seed}", 100), fontsize="small", loc="left")
    if info:
        axes.set_xlabel("step (filled: frozen)")
    return figure


def svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element; equal figures give equal text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "adaptivefreeze", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG image."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    return image.getvalue()


def _canvas(title: str, xlabel: str, ylabel: str, height: float = 5.0) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(_text(title, 90), fontsize="medium")
    axes.grid(alpha=0.3)
    return figure, axes


def _text(text: str, width: int) -> str:
    """Wrap `text`, and keep Matplotlib from reading the dollar signs of a pattern as mathematics."""
    return textwrap.fill(text, width).replace("$", r"\$")


def _label(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Write each label at the nearest place in the axes where it covers no point and no other label."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # positions are known only after layout
    frame, pixel = axes.get_window_extent(), 72 / figure.dpi
    places = [axes.transData.transform((point.x, point.score)) for point in points]
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        text = axes.annotate(
            _text(point.label, 40),
            (point.x, point.score),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )
        size = Text.get_window_extent(text)
        width, height = 1.15 * size.width, 1.15 * size.height  # browsers draw SVG text in fonts of other widths
        for distance, right, up in product(range(8, 300, 6), (1, -1, 0), (1, -1, 0, 0.5, -0.5)):
            left, bottom = right * (width / 2 + distance), up * (height / 2 + distance)
            box = Bbox.from_bounds(x + left - width / 2, y + bottom - height / 2, width, height)
            inside = frame.x0 < box.x0 and frame.y0 < box.y0 and box.x1 < frame.x1 and box.y1 < frame.y1
            if inside and not box.count_overlaps(taken):
                text.set_position((left * pixel, bottom * pixel))
                taken.append(box)
                break
        else:
            text.remove()  # the table names the point
