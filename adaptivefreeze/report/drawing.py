"""Draws the figures of a report with Matplotlib, as files for papers and slides."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from .chart import Chart, Mark, Series
from .freeze_map import FreezeMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Okabe and Ito's colours, without yellow, which is too pale on white."""

MARKERS = "os^DvPX"
GREY = "#5a626e"


def draw_chart(chart: Chart) -> Figure:
    """Return a Matplotlib figure of `chart`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(series.name for series in chart.series if not series.control))
    figure = Figure(figsize=(9, max(5.0, 0.25 * len(names))), layout="constrained")
    axes = figure.add_subplot(xlabel=_text(chart.x_label), ylabel=_text(chart.y_label))
    axes.set_title(_text(chart.title), fontsize="medium")
    axes.grid(alpha=0.3)
    for series in chart.series:
        _draw(axes, series, names.index(series.name) if not series.control else None)
    if chart.diagonal:
        axes.axline((1, 1), slope=1, color=GREY, linestyle=":", linewidth=1)
    if chart.level is not None:
        axes.axhline(chart.level[0], color=GREY, linestyle=":", linewidth=1, label=chart.level[1])
    if chart.band is not None:
        axes.axhspan(chart.band[0], chart.band[1], color=COLOURS[2], alpha=0.12, label=chart.band[2])
    if chart.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    marks = [mark for series in chart.series for mark in series.marks]
    axes.set_ylim(_limits([mark.y for mark in marks], [mark.y_error for mark in marks if mark.y_error]))
    if chart.from_zero:
        axes.set_xlim(left=min(0.0, *(mark.x for mark in marks)))
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one entry per name
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize="small")
    _label(figure, axes, [mark for mark in marks if mark.label])
    return figure


def draw_map(found: FreezeMap) -> Figure:
    """Return a Matplotlib figure of `found`: units upwards, steps to the right, frozen units filled."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    parts = 1 + bool(found.validation) + bool(found.heat)
    figure = Figure(figsize=(9, 1.0 + 2.0 * parts), layout="constrained")
    grid = figure.subplots(parts, 1, sharex=True, squeeze=False)[:, 0]
    units, rest = grid[0], list(grid[1:])
    units.set_title(_text(found.title), fontsize="medium")
    for unit, begin, end in found.spans:
        units.broken_barh([(begin, end - begin)], (unit - 0.45, 0.9), color=COLOURS[0])
    _unit_axis(units, found.units)
    units.set_xlim(0, found.steps)
    if found.validation:
        curve = rest.pop(0)
        curve.plot(*zip(*found.validation, strict=True), color=COLOURS[1], marker=".")
        curve.set_ylabel("validation\nmacro F1")
        curve.grid(alpha=0.3)
        curve.margins(y=0.25)
    if found.heat:
        heat = rest.pop(0)
        edges = [0, *(step for step, _ in found.heat)]
        values = [[float("nan") if value is None else value for value in row] for _, row in found.heat]
        heat.pcolormesh(edges, range(len(found.units) + 1), list(zip(*values, strict=True)), cmap="Blues", vmin=-0.1)
        _unit_axis(heat, found.units, 0.5)
        heat.set_title(_text(found.signal), fontsize="small")
    grid[-1].set_xlabel("step (filled: frozen)")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def svg(figure: Figure) -> str:
    """Return the figure as an SVG document; equal figures give equal text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "adaptivefreeze", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG image."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    return image.getvalue()


def _draw(axes: Axes, series: Series, index: int | None) -> None:
    """Draw a series in the colour of its place in the legend, or grey with open markers if it is a control."""
    lined, marked = series.style != "points", series.style != "line" and len(series.marks) <= 40
    colour = GREY if index is None else COLOURS[index % 7]
    axes.errorbar(
        [mark.x for mark in series.marks],
        [mark.y for mark in series.marks],
        xerr=_lengths([(mark.x, mark.x_error) for mark in series.marks]),
        yerr=_lengths([(mark.y, mark.y_error) for mark in series.marks]),
        color=colour,
        marker=MARKERS[(3 if index is None else index) % 7] if marked else "",
        markerfacecolor="white" if index is None else colour,
        linestyle=("--" if index is None else ("-", "--", ":")[index // 7 % 3]) if lined else "",
        elinewidth=1,
        label=_text(series.name, 30),
    )


def _lengths(bars: Sequence[tuple[float, tuple[float, float] | None]]) -> list[list[float]] | None:
    """Lengths of error bars below and above, or None if there are none."""
    if not any(bar for _, bar in bars):
        return None
    return [[at - bar[0] if bar else 0.0 for at, bar in bars], [bar[1] - at if bar else 0.0 for at, bar in bars]]


def _limits(values: Sequence[float], bars: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Limits of an axis: the points, and error bars as far as they leave the points apart."""
    low, high = min(values), max(values)
    spacing = (high - low) / 2 or abs(high) / 20 or 1.0
    low = max(low - spacing, min([low, *(bar[0] for bar in bars)]))
    high = min(high + spacing, max([high, *(bar[1] for bar in bars)]))
    margin = 0.08 * (high - low or spacing)
    return low - margin, high + margin


def _unit_axis(axes: Axes, units: Sequence[str], offset: float = 0.0) -> None:
    middle = len(units) // 2
    places = dict.fromkeys((0, middle, len(units) - 1))
    axes.set_ylim(offset - 0.6, len(units) - 0.4 + offset)
    axes.set_yticks([place + offset for place in places], [units[place] for place in places], fontsize="small")


def _text(text: str, width: int = 90) -> str:
    """Wrap `text`, and keep Matplotlib from reading the dollar signs of a pattern as mathematics."""
    return textwrap.fill(text, width).replace("$", r"\$")


def _label(figure: Figure, axes: Axes, points: Sequence[Mark]) -> None:
    """Write each label at the nearest place in the axes where it covers no point and no other label."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # positions are known only after layout
    frame, pixel = axes.get_window_extent(), 72 / figure.dpi
    places = [axes.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        text = axes.annotate(
            _text(point.label, 40),
            (point.x, point.y),
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
