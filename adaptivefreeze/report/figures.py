"""What the figures of a report show, computed apart from drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..model.mask import FreezeMask
from ..model.timeline import Timeline
from .summary import Row, SearchDetails, Summary
from .table import score_name

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
    labelled. `band` is the tolerance around the score of k*, on its worse side.
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
    limit = best - search.tolerance if search.greater_is_better else best + search.tolerance
    return Scores(
        summary.subject,
        "frozen blocks" if by_depth else "training time (s)",
        f"{score_name(search.metric)} on validation examples",
        points=(*candidates, *(point for point in points if point.group == "baselines")),
        line=candidates if by_depth else (),
        band=(min(best, limit), max(best, limit)),
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
    units = (mask.embeddings, *(i in mask.blocks for i in range(mask.depth)), mask.head)
    return frozenset(number for number, frozen in enumerate(units) if frozen)


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
        for step, frozen in (*changes, (steps, frozenset[int]())):
            if unit in frozen and begun is None:
                begun = step
            elif unit not in frozen and begun is not None:
                spans.append((unit, begun, step))
                begun = None
    return tuple(span for span in spans if span[1] < span[2])
