"""The table of a report: its columns, its caption, and how a terminal shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from ..comparison.statistics import Interval
from .checks import TOLERANCE, resolution
from .row import Row, Spread
from .summary import SAME_TIME, Summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "–"

_DROPPED_FIRST = (
    *("weighted F1", "accuracy", "s to quality", "trainable", "Δ entity F1", "× to entity F1"),
    *("energy", "peak memory", "Δ macro F1", "entity F1", "× to quality", "Δ to short full"),
)
"""Columns that a narrow terminal leaves out, in this order."""


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: Heading.
        cell: Text of a row's cell.
        values: Columns of the CSV file, name to value. None stands for an empty cell.
    """

    title: str
    cell: Callable[[Row], str]
    values: Mapping[str, Callable[[Row], object]]


def columns(summary: Summary) -> tuple[Column, ...]:
    """Return the columns that this report needs; the first one names the row."""
    search = summary.search
    train = _spread("train s", "train_seconds", _seconds)
    speedup = _spread("×", "speedup", _ratio)
    memory = _spread("peak memory", "peak_memory_bytes", format_bytes)
    if search is not None:
        score = score_name(search.metric)
        return (
            _candidate("candidate" if search.best.depth is None else "depth", search.replicates),
            _spread(score, "validation_score", _score),
            *(_CERTAINTY if len(search.replicates) > 1 else ()),
            train,
            speedup,
            memory,
            _spread(f"test {score}", "test_score", _score),
        )
    untested = any(run.metrics is None for run in summary.results)
    has_entities = any(run.metrics and run.metrics.entity_f1 is not None for run in summary.results)
    has_controls = any(row.control for row in summary.rows)
    return (
        _SCENARIO,
        _spread("trainable", "trainable_parameters", _count),
        *((_spread("epochs", "epochs", _ratio),) if _same_time(summary) else ()),
        train,
        speedup,
        _spread("predicted ×", "predicted_speedup", _ratio),
        *((_spread("validation macro F1", "validation_score", _score),) if untested else ()),
        _spread("macro F1", "macro_f1", _score),
        _difference("Δ macro F1", "loss", "macro_f1_difference"),
        *((_CONTROL,) if has_controls else ()),
        *(_CACHE if any(row.cache_hit_rate for row in summary.rows) else ()),
        _spread("accuracy", "accuracy", _score),
        _spread("weighted F1", "weighted_f1", _score),
        *((_spread("entity F1", "entity_f1", _score),) if has_entities else ()),
        *((_difference("Δ entity F1", "entity_loss", "entity_f1_difference"),) if has_entities else ()),
        _spread("s to quality", "seconds_to_quality", _seconds, reached="reached"),
        _spread("× to quality", "speedup_to_quality", _ratio),
        *((_TO_ENTITY_QUALITY,) if has_entities else ()),
        memory,
        *((_spread("energy", "energy_joules", _joules),) if any(row.energy_joules for row in summary.rows) else ()),
    )


def _spread(title: str, key: str, write: Callable[[float], str], *, reached: str | None = None) -> Column:
    """Column of the `Spread` field `key`. With `reached`, a field, the cell says if it lacks some of the seeds."""

    def cell(row: Row) -> str:
        spread: Spread | None = getattr(row, key)
        if spread is None:
            return MISSING
        text = write(spread.mean) + (f" ± {write(spread.sd)}" if spread.sd else "")
        if reached is not None and len(getattr(row, reached)) < len(row.seeds):
            text += f" ({len(getattr(row, reached))} of {len(row.seeds)})"
        return text

    def value(part: str) -> Callable[[Row], object]:
        return lambda row: getattr(getattr(row, key), part, None)

    return Column(title, cell, {key: value("mean"), f"{key}_sd": value("sd")})


def _difference(title: str, key: str, name: str) -> Column:
    """Column of the `Interval` field `key`: a difference in points; empty for full fine-tuning itself."""

    def part(part: str) -> Callable[[Row], object]:
        return lambda row: None if row.highlighted else getattr(getattr(row, key), part, None)

    def cell(row: Row) -> str:
        return MISSING if row.highlighted else _points(getattr(row, key))

    return Column(title, cell, {name: part("mean"), f"{name}_low": part("low"), f"{name}_high": part("high")})


def _points(interval: Interval | None) -> str:
    """`−0.53 ± 0.41`: a difference in points with half of its interval."""
    if interval is None:
        return MISSING
    half = "" if interval.high is None else f" ± {100 * (interval.high - interval.mean):.2f}"
    return f"{round(100 * interval.mean, 2) + 0.0:+.2f}{half}".replace("-", "−")


def _control(row: Row) -> str:
    return MISSING if row.control is None else f"{_points(row.control_loss)} ({row.control.partition(':')[2]})"


def _candidate(title: str, replicates: tuple[str, ...]) -> Column:
    """The first column of a search; in the CSV file with the score on each seed or fold."""

    def score(index: int) -> Callable[[Row], object]:
        return lambda row: row.scores[index] if index < len(row.scores) else None

    values = _fields("scenario", "role", "depth", "learning_rate")
    return Column(title, _LABEL, values | {name: score(index) for index, name in enumerate(replicates)})


def _fields(*names: str) -> dict[str, Callable[[Row], object]]:
    return {name: attrgetter(name) for name in names}


_LABEL: Callable[[Row], str] = attrgetter("label")

_SCENARIO = Column(
    "scenario",
    _LABEL,
    {
        "scenario": attrgetter("scenario"),
        "seeds": lambda row: " ".join(map(str, row.seeds)),
        "failed_seeds": lambda row: " ".join(map(str, row.failed)),
        "quality_seeds": lambda row: " ".join(map(str, row.reached)),
    },
)

_CONTROL = Column(
    "Δ to short full",
    _control,
    {
        "short_full": attrgetter("control"),
        "short_full_difference": lambda row: getattr(row.control_loss, "mean", None),
        "short_full_difference_low": lambda row: getattr(row.control_loss, "low", None),
        "short_full_difference_high": lambda row: getattr(row.control_loss, "high", None),
    },
)

_TO_ENTITY_QUALITY = _spread(
    "× to entity F1", "speedup_to_entity_quality", lambda value: f"{value:.2f}", reached="entity_reached"
)

_CACHE = (
    _spread("cache hits", "cache_hit_rate", "{:.0%}".format),
    _spread("cache saved s", "cache_seconds_saved", lambda value: f"{value:,.1f}"),
)

_CERTAINTY = (
    Column(
        "95 % interval",
        lambda row: MISSING if row.interval_low is None else f"{row.interval_low:.4f} to {row.interval_high:.4f}",
        _fields("interval_low", "interval_high"),
    ),
    Column(
        "P(best)",
        lambda row: MISSING if row.probability_best is None else f"{row.probability_best:.0%}",
        _fields("probability_best"),
    ),
)


def terminal(summary: Summary, console: Console) -> Table:
    """Return the table for `console`, without the least important columns if it is too narrow for all."""
    shown = columns(summary)
    unbounded = console.options.update(width=10_000)
    for title in ("", *_DROPPED_FIRST):
        shown = tuple(column for column in shown if column.title != title)
        table = _rich_table(summary, shown)
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    return table


def _rich_table(summary: Summary, shown: tuple[Column, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(shown[0].title, overflow="fold", vertical="bottom")
    for column in shown[1:]:
        table.add_column("\n".join(column.title.rsplit(" ", 1)), justify="right", vertical="bottom")
    for row in summary.rows:
        cells = [Text(column.cell(row)) for column in shown]
        table.add_row(*cells, style="bold" if row.highlighted else None)
    return table


def caption(summary: Summary) -> str:
    """Return how to read the numbers."""
    if summary.search is not None:
        metric, replicates = score_name(summary.search.metric), summary.search.replicates
        several = len(replicates) > 1
        over = f"mean ± standard deviation over {', '.join(replicates)}" if several else replicates[0]
        order = "" if summary.search.greater_is_better else " (lower is better)"
        certain = " 95 % interval: t interval of the mean. P(best): from the paired scores." if several else ""
        return (
            f"{metric[0].upper()}{metric[1:]} on validation examples{order}, {over}.{certain} Train s: time in "
            "training steps, of a run that starts with an empty prefix cache. ×: speedup over full fine-tuning. "
            "Test: measured once, for the chosen candidates."
        )
    seeds = {run.seed for run in summary.results}
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    error = resolution(summary.results, "test")
    resolved = f" Standard error due to the size of the split: {100 * error:.1f} points of macro F1." if error else ""
    control = (
        f"Δ to short full: difference to full fine-tuning with a shorter schedule that took the same time within "
        f"{100 * SAME_TIME:.0f} %, and its share of the steps. "
    )
    control = control if any(row.control for row in summary.rows) else ""
    clock = "processor " if all(run.settings.get("clock") == "processor" for run in summary.results) else ""
    half = " ± half of its 95 % t interval" if len(seeds) > 1 else ""
    cached = (
        "Cache hits: share of lookups that found a stored output; cache saved s: estimated time of the forward passes "
        "that were skipped, less the time of the cache, evaluations included. "
        if any(row.cache_hit_rate for row in summary.rows)
        else ""
    )
    epochs = "Epochs: as many as fit into the training time of full fine-tuning. " if _same_time(summary) else ""
    entities = "; × to entity F1: the same by entity F1" if any(row.entity_loss for row in summary.rows) else ""
    return (
        f"Scores on the test split, {over}.{resolved} Train s: {clock}time in training steps. ×: speedup over full "
        "fine-tuning, seed by seed. Predicted ×: the same by the cost model. Δ: difference to full fine-tuning in "
        f"points, seed by seed{half}. {control}{cached}{epochs}s to quality: training time until validation macro F1 "
        f"first came within {TOLERANCE * 100:.1f} points of the final score of full fine-tuning with the same seed; "
        "(2 of 3): mean over the seeds that reached it. × to quality: that time for full fine-tuning divided by that "
        f"of the row{entities}."
    )


def _same_time(summary: Summary) -> bool:
    """Whether the runs were trained for the time of full fine-tuning, and not for the same number of steps."""
    return any(run.matched is not None for run in summary.results)


def score_name(metric: str) -> str:
    """Return the readable name of a metric key of `Trainer`.

    Example:
        >>> score_name("eval_entity_f1")
        'entity F1'
    """
    return metric.removeprefix("eval_").replace("_f1", " F1").replace("_", " ")


def format_bytes(value: float) -> str:
    """Return a size in MiB, from 1 GiB on in GiB."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def _count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{value:,.1f}"


def _joules(value: float) -> str:
    return f"{value:,.0f} J"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _score(value: float) -> str:
    return f"{value:.4f}"
