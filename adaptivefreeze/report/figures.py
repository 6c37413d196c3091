"""What the figures of a report show, computed apart from drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

from ..comparison.result import RunResult
from ..model.mask import FreezeMask
from .chart import Chart, Mark, Range, Series
from .checks import TOLERANCE
from .published import Published
from .row import Row, Spread
from .sampling import evenly
from .summary import SearchDetails, Summary, seconds_to_quality
from .table import score_name

CURVE_POINTS = 200
"""Points of one learning curve; longer ones are thinned out."""


def charts(summary: Summary, published: Mapping[str, Published] | None = None) -> tuple[Chart, ...]:
    """Return the charts that `summary` has data for.

    Args:
        summary: The study.
        published: Figures of a publication by scenario, to show beside those of the runs.
    """
    if summary.search is not None:
        return (search_scores(summary, summary.search),)
    found = [
        trade_off(summary, "time", "training time (s)", lambda row: row.train_seconds, "{:,.1f} s".format),
        by_depth(summary, published or {}),
        learning_curves(summary),
        trade_off(summary, "memory", "peak memory (MiB)", _mebibytes, "{:,.0f} MiB".format),
        trade_off(summary, "energy", "energy (J)", lambda row: row.energy_joules, "{:,.0f} J".format),
        prediction(summary),
    ]
    return tuple(chart for chart in found if any(series.marks for series in chart.series))


def trade_off(
    summary: Summary, key: str, label: str, cost: Callable[[Row], Spread | None], write: Callable[[float], str]
) -> Chart:
    """Quality against a cost, with the Pareto front: what no other scenario beats in both."""
    points: list[tuple[Row, Mark]] = []
    for row in summary.rows:
        spent, score = cost(row), _score(row)
        if spent is None or score is None:
            continue
        gain = f", {row.speedup.mean:.2f}×" if row.speedup else ""
        points.append(
            (
                row,
                Mark(
                    spent.mean,
                    100 * score.mean,
                    f"{row.scenario}: {_percent(score)}, {write(spent.mean)}{gain}",
                    x_error=spent.interval,
                    y_error=_scaled(score.interval),
                    label=_short(row.scenario),
                ),
            )
        )
    marks = sorted((mark for _, mark in points), key=lambda mark: mark.x)
    front = tuple(mark for mark in marks if not any(_dominates(other, mark) for other in marks))
    plain = tuple(Mark(mark.x, mark.y, mark.text) for mark in front)
    groups = sorted(points, key=lambda point: _group(point[0]))
    return Chart(
        f"quality-{key}",
        f"Quality against {label.partition(' (')[0]}",
        f"Up and to the left is better. {_BARS} Grey with open markers: the controls. Line: the Pareto front, the "
        "scenarios that no other beats in both.",
        label,
        f"macro F1 on the {_split(summary)} split (points)",
        (
            Series("Pareto front", plain, "line", control=True),
            *(
                Series(name, tuple(mark for _, mark in members), control=name in _CONTROLS)
                for name, members in groupby(groups, key=lambda point: _group(point[0]))
            ),
        )
        if points
        else (),
    )


def by_depth(summary: Summary, published: Mapping[str, Published]) -> Chart:
    """Quality against the number of frozen blocks, from both ends."""
    depths: dict[str, float] = {}
    for run in summary.results:
        if (depth := static_depth(run)) is not None:
            depths[run.scenario] = depth
    series = []
    for side in ("bottom-up", "top-down"):
        rows = [row for row in summary.rows if row.scenario in depths]
        rows = [row for row in rows if row.scenario.partition(":")[0] == side or row.scenario == "nothing"]
        marks = [(depths[row.scenario], row, score) for row in rows if (score := _score(row)) is not None]
        if len(marks) < 2:
            continue
        drawn = (
            Mark(depth, 100 * score.mean, f"{row.scenario}: {_percent(score)}", y_error=_scaled(score.interval))
            for depth, row, score in sorted(marks, key=lambda mark: mark[0])
        )
        series.append(Series(side, tuple(drawn), "both"))
        known = [
            Mark(depths[name], 100 * found.macro_f1, f"{name}, published: {100 * found.macro_f1:.1f}")
            for name, found in published.items()
            if name in depths and name.startswith(side)
        ]
        if known:
            series.append(Series(f"{side}, published", tuple(sorted(known, key=lambda mark: mark.x)), "both", True))
    full = next((score for row in summary.rows if row.highlighted and (score := _score(row))), None)
    return Chart(
        "quality-depth",
        "Quality against depth",
        f"{_BARS} Bottom-up freezes the embeddings as well.",
        "frozen blocks",
        f"macro F1 on the {_split(summary)} split (points)",
        tuple(series),
        whole=True,
        level=(100 * full.mean, "full fine-tuning") if full and series else None,
    )


def learning_curves(summary: Summary) -> Chart:
    """Validation score during training, with the times at which the quality of full fine-tuning was reached."""
    runs = [run for run in summary.results if len(run.validation) > 1]
    reached = seconds_to_quality(summary)
    stars = []
    for run in runs:
        seconds = reached.get((run.scenario, run.seed))
        if seconds is not None and not run.full_fine_tuning:
            score = next(point.macro_f1 for point in run.validation if point.seconds == seconds)
            text = f"{run.scenario}, seed {run.seed}: quality of full fine-tuning after {seconds:,.1f} s"
            stars.append(Mark(seconds, 100 * score, text))
    lines = []
    for run in runs:
        marks = tuple(Mark(point.seconds, 100 * point.macro_f1) for point in evenly(run.validation, CURVE_POINTS))
        lines.append(Series(run.scenario, marks, "both"))
    return Chart(
        "learning-curves",
        "Learning curves",
        "One line per run. Open markers: the first evaluation within "
        f"{100 * TOLERANCE:.1f} points of the final score of full fine-tuning with the same seed.",
        "training time (s)",
        "macro F1 on the validation split (points)",
        (*lines, *((Series("time to quality", tuple(stars), control=True),) if stars else ())),
    )


def prediction(summary: Summary) -> Chart:
    """Measured against predicted speedup."""
    series = []
    for name, rows in groupby(sorted(summary.rows, key=_group), key=_group):
        marks = [
            Mark(
                row.predicted_speedup.mean,
                row.gain.mean,
                f"{row.scenario}: measured {row.gain.mean:.2f}×, predicted {row.predicted_speedup.mean:.2f}×",
                y_error=_bounds(row.gain.low, row.gain.high),
                label=_short(row.scenario),
            )
            for row in rows
            if row.predicted_speedup and row.gain and not row.highlighted
        ]
        series += [Series(name, tuple(marks), control=name in _CONTROLS)] if marks else []
    return Chart(
        "prediction",
        "Predicted and measured speedup",
        f"On the dashed line both are equal. {_BARS}",
        "predicted speedup over full fine-tuning (×)",
        "measured speedup (×)",
        tuple(series),
        from_zero=False,
        diagonal=True,
    )


def search_scores(summary: Summary, search: SearchDetails) -> Chart:
    """Validation score of each candidate and baseline against frozen blocks, or training time in a sampled search."""
    depths = search.best.depth is not None
    scale = 100.0 if search.greater_is_better else 1.0
    unit = " (points)" if search.greater_is_better else ""
    found: dict[str, list[Mark]] = {"candidates": [], "baselines": []}
    for row in summary.rows:
        if (score := row.validation_score) is None:
            continue
        x = frozen_blocks(row) if depths else row.train_seconds.mean if row.train_seconds else 0.0
        gain = f", {row.speedup.mean:.1f}×" if row.speedup else ""
        low, high = row.interval_low, row.interval_high
        found["baselines" if row.role == "baseline" else "candidates"].append(
            Mark(
                x,
                scale * score.mean,
                f"{row.label}: {scale * score.mean:.4g}{gain}",
                y_error=None if low is None or high is None else (scale * low, scale * high),
                label=row.name if row.role == "baseline" else _choice(row, search),
            )
        )
    candidates = tuple(sorted(found["candidates"], key=lambda mark: mark.x))
    best = search.best.validation_score.mean if search.best.validation_score else 0.0
    limit = best - search.tolerance if search.greater_is_better else best + search.tolerance
    return Chart(
        "search",
        "Score against depth" if depths else "Score against training time",
        "Error bars: 95 % interval over seeds or folds. Shaded: within the tolerance of the best.",
        "frozen blocks" if depths else "training time (s)",
        f"{score_name(search.metric)} on validation examples{unit}",
        (
            Series("candidates", candidates, "both" if depths else "points"),
            *((Series("baselines", tuple(found["baselines"]), control=True),) if found["baselines"] else ()),
        ),
        whole=depths,
        band=(scale * min(best, limit), scale * max(best, limit), "within the tolerance"),
    )


def static_depth(run: RunResult) -> int | None:
    """The number of frozen blocks of a run whose mask never changed, or None."""
    if len(run.timeline) != 1 or run.timeline[0].get("frozen") is None:
        return None
    return len(FreezeMask.from_json(run.timeline[0]["frozen"]).blocks)


def frozen_blocks(row: Row) -> float:
    """The depth, or else the number that the spec begins with: 3 of `top-down:3,embeddings=true`, 0 of `head-only`."""
    if row.depth is not None:
        return float(row.depth)
    first = row.scenario.partition(":")[2].partition(",")[0]
    return float(first) if first.isascii() and first.replace(".", "", 1).isdecimal() else 0.0


_BARS = "Error bars: 95 % t interval of the mean over seeds, cut off at the edge of the figure."

_CONTROLS = ("full fine-tuning", "random-prefix", "short-full")


def _group(row: Row) -> str:
    return "full fine-tuning" if row.highlighted else row.scenario.partition(":")[0]


def _short(scenario: str) -> str:
    """The first argument of a spec, or the spec itself: `3` of `bottom-up:3`."""
    return scenario.partition(":")[2].split(",")[0] or scenario


def _score(row: Row) -> Spread | None:
    return row.macro_f1 or row.validation_score


def _split(summary: Summary) -> str:
    return "test" if any(row.macro_f1 for row in summary.rows) else "validation"


def _mebibytes(row: Row) -> Spread | None:
    peak = row.peak_memory_bytes
    return None if peak is None else Spread(peak.mean / 2**20, peak.sd and peak.sd / 2**20, peak.count)


def _percent(score: Spread) -> str:
    interval = score.interval
    half = f" ± {100 * (interval[1] - score.mean):.1f}" if interval else ""
    return f"macro F1 {100 * score.mean:.1f}{half}"


def _scaled(interval: Range | None) -> Range | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _bounds(low: float | None, high: float | None) -> Range | None:
    return None if low is None or high is None else (low, high)


def _dominates(one: Mark, other: Mark) -> bool:
    """Whether `one` is at least as good as `other` in cost and score, and better in one of them."""
    return (one.x, one.y) != (other.x, other.y) and one.x <= other.x and one.y >= other.y


def _choice(row: Row, search: SearchDetails) -> str:
    """`k*, 1.7×` for a chosen row, empty for the others."""
    name = " = ".join(name for name, chosen in (("k*", search.best), ("k_fast", search.fast)) if row == chosen)
    return f"{name}, {row.speedup.mean:.1f}×" if name and row.speedup else name
