"""The plot of a search: score against depth, baselines beside it. What it shows is computed apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .table import score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..search import DepthSearch, Outcome


@dataclass(frozen=True)
class Mark:
    """One candidate: `place` on the horizontal axis, its score, and how far its interval reaches below and above."""

    name: str
    place: float
    score: float
    below: float
    above: float
    speedup: float | None


@dataclass(frozen=True)
class Curve:
    """`marks` in order; `by_depth`: places are depths, else training seconds. `chosen` are k* and k_fast by name."""

    title: str
    metric: str
    by_depth: bool
    marks: tuple[Mark, ...]
    baselines: tuple[Mark, ...]
    chosen: tuple[tuple[str, Mark], ...]
    tolerance: float

    @property
    def best(self) -> Mark:
        """k*."""
        return self.chosen[0][1]


def curve(search: DepthSearch) -> Curve:
    """What the plot shows: every candidate with a score; baselines at the depth that they freeze, if they have one."""
    by_depth = search.best.depth is not None
    marks = [_mark(outcome, by_depth) for outcome in search.outcomes if outcome.certainty is not None]
    beside = [_mark(outcome, by_depth) for outcome in search.baselines if outcome.certainty is not None]
    named = {mark.name: mark for mark in marks}
    best, fast = named[search.best.name], named[search.fast.name]
    return Curve(
        title=search.title,
        metric=score_name(search.metric),
        by_depth=by_depth,
        marks=tuple(sorted(marks, key=lambda mark: mark.place)),
        baselines=tuple(beside),
        chosen=(("k* = k_fast", best),) if best is fast else (("k*", best), ("k_fast", fast)),
        tolerance=search.tolerance,
    )


def draw(info: Curve) -> Figure:
    """`info` as a figure that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    _points(axes, info.marks, fmt="o-" if info.by_depth else "o", label="searched")
    _points(axes, info.baselines, fmt="D", label="baselines", color="C7")
    for mark in info.baselines:
        axes.annotate(
            mark.name, (mark.place, mark.score), xytext=(5, 4), textcoords="offset points", fontsize="x-small"
        )
    axes.axhspan(
        info.best.score - info.tolerance, info.best.score, color="C2", alpha=0.12, label="within the tolerance"
    )
    for name, mark in info.chosen:
        speed = f", {mark.speedup:.1f}×" if mark.speedup else ""
        axes.annotate(
            f"{name}{speed}",
            (mark.place, mark.score),
            xytext=(0, 14 if mark is info.best else -22),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
        )
    axes.set(
        xlabel="frozen blocks" if info.by_depth else "training time (s)",
        ylabel=f"{info.metric} on validation examples",
        title=info.title,
    )
    axes.title.set_fontsize("medium")
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _points(axes: Axes, marks: Sequence[Mark], **style: Any) -> None:
    if not marks:
        return
    places, scores = [mark.place for mark in marks], [mark.score for mark in marks]
    axes.errorbar(places, scores, yerr=[[m.below for m in marks], [m.above for m in marks]], capsize=3, **style)


def _mark(outcome: Outcome, by_depth: bool) -> Mark:
    sure = outcome.certainty
    if sure is None:
        raise ValueError(f"{outcome.name} has no score to draw")
    low = sure.mean if sure.low is None else sure.low
    high = sure.mean if sure.high is None else sure.high
    place = outcome.seconds or 0.0
    if by_depth:
        place = float(outcome.depth) if outcome.depth is not None else blocks_named(outcome.scenario)
    return Mark(outcome.name, place, sure.mean, sure.mean - low, high - sure.mean, outcome.speedup)


def blocks_named(scenario: str) -> float:
    """The number that a policy's spec begins with, 0 where it has none: 3 of `top-down:3,embeddings=true`."""
    first = scenario.partition(":")[2].partition(",")[0]
    return float(first) if first.replace(".", "", 1).isdecimal() else 0.0
