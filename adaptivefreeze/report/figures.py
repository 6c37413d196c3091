"""The figures of a report. What a figure shows is computed apart from drawing it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from ..model.mask import EMBEDDINGS, HEAD, FreezeMask
from ..model.timeline import Timeline
from .summary import Row, SearchDetails, Summary
from .table import score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TIMELINES = 16
"""Number of runs in the timeline figure; the page lists all runs in a table."""


@dataclass(frozen=True)
class Point:
    """A row of the table as a point. `below` and `above` are the lengths of its vertical error bar."""

    name: str
    group: str
    x: float
    score: float
    x_error: float = 0.0
    below: float = 0.0
    above: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Scores:
    """Scores as points, one marker per group.

    `line` joins some of the points, `line_label` is its name in the legend. `band` is a shaded range of scores.
    """

    title: str
    xlabel: str
    ylabel: str
    points: tuple[Point, ...]
    line: tuple[Point, ...] = ()
    line_label: str | None = None
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """Validation of one run: `points` are (training seconds, macro F1)."""

    scenario: str
    seed: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FreezeTimeline:
    """What one run froze, and when.

    `spans` are (unit, first step, step after the last) during which a whole unit was frozen. Units are numbered from
    0, the embeddings, to `depth` + 1, the head.
    """

    scenario: str
    seed: int
    steps: int
    depth: int
    spans: tuple[tuple[int, int, int], ...]


def trade_off(summary: Summary) -> Scores:
    """Test macro F1 against training time: scenarios in order of time, error bars of one standard deviation.

    `line` is the Pareto front: no other scenario is better in time or score without being worse in the other.
    """
    points = [
        Point(
            row.scenario,
            group=row.scenario.partition(":")[0],
            x=row.train_seconds.mean,
            score=row.macro_f1.mean,
            x_error=row.train_seconds.sd or 0.0,
            below=row.macro_f1.sd or 0.0,
            above=row.macro_f1.sd or 0.0,
            label=row.scenario.partition(":")[2].split(",")[0] or row.scenario,
        )
        for row in summary.rows
        if row.train_seconds is not None and row.macro_f1 is not None
    ]
    points.sort(key=lambda point: point.x)
    return Scores(
        summary.subject,
        "training time (s)",
        "macro F1 on the test split",
        points=tuple(points),
        line=tuple(point for point in points if not any(_dominates(other, point) for other in points)),
        line_label="Pareto front",
    )


def search_scores(summary: Summary, search: SearchDetails) -> Scores:
    """Validation score of each candidate and baseline, with 95 % intervals, against frozen blocks.

    The candidates of a search that sampled more than the depth stand against training time. k* and k_fast are
    labelled. `band` is the tolerance below k*.
    """
    by_depth = search.best.depth is not None
    points = []
    for row in summary.rows:
        if row.validation_score is not None:
            mean = row.validation_score.mean
            seconds = row.train_seconds.mean if row.train_seconds else 0.0
            points.append(
                Point(
                    row.name,
                    group="baselines" if row.role == "baseline" else "candidates",
                    x=frozen_blocks(row) if by_depth else seconds,
                    score=mean,
                    below=0.0 if row.interval_low is None else mean - row.interval_low,
                    above=0.0 if row.interval_high is None else row.interval_high - mean,
                    label=row.name if row.role == "baseline" else _choice(row, search),
                )
            )
    candidates = tuple(sorted((point for point in points if point.group == "candidates"), key=lambda point: point.x))
    best = next(point.score for point in points if point.name == search.best.name)
    return Scores(
        summary.subject,
        "frozen blocks" if by_depth else "training time (s)",
        f"{score_name(search.metric)} on validation examples",
        points=(*candidates, *(point for point in points if point.group == "baselines")),
        line=candidates if by_depth else (),
        band=(best - search.tolerance, best),
    )


def validation_curves(summary: Summary) -> tuple[Curve, ...]:
    """Validation macro F1 during training, of every run with two or more evaluations."""
    return tuple(
        Curve(run.scenario, run.seed, tuple((point.seconds, point.macro_f1) for point in run.validation))
        for run in summary.results
        if len(run.validation) > 1
    )


def freeze_timelines(summary: Summary) -> tuple[FreezeTimeline, ...]:
    """Return the first run of each scenario whose mask changed during training."""
    found: dict[str, FreezeTimeline] = {}
    for run in summary.results:
        # Results of earlier versions hold the masks as text only.
        if run.scenario in found or not all("frozen" in change for change in run.timeline):
            continue
        timeline, depth = Timeline.from_json(run.timeline), run.model.blocks
        if len({change.mask for change in timeline}) > 1:
            changes = [(change.step, frozen_units(change.mask)) for change in timeline]
            spans = _spans(changes, run.steps, depth)
            found[run.scenario] = FreezeTimeline(run.scenario, run.seed, run.steps, depth, spans)
    return tuple(found.values())[:MAX_TIMELINES]


def frozen_units(mask: FreezeMask) -> frozenset[int]:
    """Return the numbers of the units that are frozen as a whole: embeddings 0, block i i + 1, head depth + 1.

    Example:
        >>> sorted(frozen_units(FreezeMask.first(4, 2)))
        [0, 1, 2]
    """
    ends = {number for number, on in ((0, mask.embeddings), (mask.depth + 1, mask.head)) if on}
    return frozenset(ends | {i + 1 for i in mask.blocks})


def figures(summary: Summary) -> dict[str, Figure]:
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
            label=textwrap.fill(curve.scenario, 30),
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
        axes.set_title(textwrap.fill(f"{run.scenario}, seed {run.seed}", 100), fontsize="small", loc="left")
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
    axes.set_title(textwrap.fill(title, 90), fontsize="medium")
    axes.grid(alpha=0.3)
    return figure, axes


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
            textwrap.fill(point.label, 40),
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


def _dominates(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good as `other` in time and score, and better in one of them."""
    return (one.x, one.score) != (other.x, other.score) and one.x <= other.x and one.score >= other.score


def _choice(row: Row, search: SearchDetails) -> str:
    """`k*, 1.7×` for a chosen row, empty for the others."""
    name = " = ".join(name for name, chosen in (("k*", search.best), ("k_fast", search.fast)) if row == chosen)
    return f"{name}, {row.speedup.mean:.1f}×" if name and row.speedup else name


def frozen_blocks(row: Row) -> float:
    """The depth, or else the number that the spec begins with: 3 of `top-down:3,embeddings=true`, 0 of `head-only`."""
    if row.depth is not None:
        return float(row.depth)
    first = row.scenario.partition(":")[2].partition(",")[0]
    return float(first) if first.replace(".", "", 1).isdecimal() else 0.0


def _spans(changes: Sequence[tuple[int, frozenset[int]]], steps: int, depth: int) -> tuple[tuple[int, int, int], ...]:
    """The (unit, first step, step after the last) spans of a sequence of (step, frozen units)."""
    spans = []
    for unit in range(depth + 2):
        begun: int | None = None
        for step, frozen in changes:
            if unit in frozen and begun is None:
                begun = step
            elif unit not in frozen and begun is not None:
                spans.append((unit, begun, step))
                begun = None
        if begun is not None and begun < steps:
            spans.append((unit, begun, steps))
    return tuple(spans)
