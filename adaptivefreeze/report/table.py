"""The table of a study: its columns once, written for Markdown, for CSV and for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .summary import TOLERANCE, Row, Spread, Summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NOTHING = "–"

_SAME_TIME = "Each scenario had as many epochs as the unfrozen run's seconds pay for. "

_EXPENDABLE = (
    "weighted_f1",
    "accuracy",
    "seconds_to_quality",
    "trainable_parameters",
    "energy_joules",
    "peak_memory_bytes",
    "entity_f1",
    "speedup_to_quality",
)


@dataclass(frozen=True)
class Column:
    """A column: `title` for people, `key` for CSV, `value` of a row and how it is written.

    `reached`: the value is over the seeds that came to full fine-tuning's quality; the cell says so where some did not.
    """

    title: str
    key: str
    value: Callable[[Row], Spread | None]
    write: Callable[[float], str]
    reached: bool = False


def columns(summary: Summary) -> tuple[Column, ...]:
    """The columns that say something about this study's task."""
    entity = Column("entity F1", "entity_f1", lambda row: row.entity_f1, _score)
    energy = Column("energy", "energy_joules", lambda row: row.energy, lambda v: f"{v:,.0f} J")
    return (
        Column("trainable", "trainable_parameters", lambda row: row.trainable_parameters, _count),
        *((Column("epochs", "epochs", lambda row: row.epochs, _times),) if summary.same_time else ()),
        Column("train s", "train_seconds", lambda row: row.train_seconds, _seconds),
        Column("×", "speedup", lambda row: row.speedup, _times),
        Column("predicted ×", "predicted_speedup", lambda row: row.predicted_speedup, _times),
        Column("accuracy", "accuracy", lambda row: row.accuracy, _score),
        Column("macro F1", "macro_f1", lambda row: row.macro_f1, _score),
        Column("weighted F1", "weighted_f1", lambda row: row.weighted_f1, _score),
        *((entity,) if summary.has_entities else ()),
        Column("s to quality", "seconds_to_quality", lambda row: row.to_quality, _seconds, reached=True),
        Column("× to quality", "speedup_to_quality", lambda row: row.speedup_to_quality, _times),
        Column("peak memory", "peak_memory_bytes", lambda row: row.peak_memory, count_bytes),
        *((energy,) if any(row.energy for row in summary.rows) else ()),
    )


def cell(column: Column, row: Row) -> str:
    """What stands in a row's cell: `0.912 ± 0.004`, or a dash where nothing is known."""
    spread = column.value(row)
    if spread is None:
        return NOTHING
    text = column.write(spread.mean)
    if spread.sd:
        text = f"{text} ± {column.write(spread.sd)}"
    if column.reached and len(row.reached) < len(row.seeds):
        text = f"{text} ({len(row.reached)} of {len(row.seeds)})"
    return text


def label(row: Row) -> str:
    """The scenario, with the seeds that failed."""
    if not row.failed:
        return row.scenario
    return f"{row.scenario} (failed: seed {', '.join(map(str, row.failed))})"


def markdown(summary: Summary) -> str:
    """The table as GitHub reads it, with a line on how to read it."""
    shown = columns(summary)
    lines = [
        "| " + " | ".join(["scenario", *(column.title for column in shown)]) + " |",
        "| " + " | ".join(["---", *("---:" for _ in shown)]) + " |",
    ]
    for row in summary.rows:
        # A pattern may hold what Markdown takes for markup.
        name = "`" + label(row).replace("|", "\\|") + "`"
        lines.append("| " + " | ".join([name, *(cell(column, row) for column in shown)]) + " |")
    return "\n".join([*lines, "", caption(summary), ""])


def as_csv(summary: Summary) -> str:
    """The table for programs: plain numbers, a `_sd` column beside each mean, empty where nothing is known."""
    shown = columns(summary)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [name for column in shown for name in (column.key, f"{column.key}_sd")]
    writer.writerow(["scenario", "seeds", "failed_seeds", "quality_seeds", *heads])
    for row in summary.rows:
        spreads = [column.value(row) for column in shown]
        numbers = [n for s in spreads for n in ((None, None) if s is None else (s.mean, s.sd))]
        seeds = [" ".join(map(str, group)) for group in (row.seeds, row.failed, row.reached)]
        writer.writerow([row.scenario, *seeds, *("" if n is None else n for n in numbers)])
    return text.getvalue()


def terminal(summary: Summary, console: Console) -> Table:
    """The table for `console`; where it is too narrow, the columns that are missed least are left to the files."""
    shown = columns(summary)
    unbounded = console.options.update(width=10_000)
    for key in ("", *_EXPENDABLE):
        shown = tuple(column for column in shown if column.key != key)
        table = _terminal(summary, shown)
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    return table


def _terminal(summary: Summary, shown: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("scenario", overflow="fold")
    for column in shown:
        table.add_column("\n".join(column.title.rsplit(" ", 1)), justify="right", vertical="bottom")
    for row in summary.rows:
        cells = [Text(cell(column, row)) for column in shown]
        table.add_row(Text(label(row)), *cells, style="bold" if row.unfrozen else None)
    return table


def title(summary: Summary) -> str:
    """What was trained on what."""
    task, model = summary.task, summary.model
    return (
        f"Data set {task.dataset} with {task.train_examples:,} training examples, "
        f"model {model.name} with {model.blocks} blocks"
    )


def caption(summary: Summary) -> str:
    """How to read the numbers."""
    seeds = sorted({run.seed for run in summary.results})
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    return (
        f"Scores on the test split, {over}. Train s: training steps alone. ×: against the mean of the unfrozen runs. "
        f"{_SAME_TIME if summary.same_time else ''}"
        f"s to quality: training seconds until validation macro F1 first came within {TOLERANCE * 100:.1f} points of "
        "where the unfrozen run of the same seed ended; (2 of 3): over the seeds that came there alone. × to quality: "
        "the unfrozen run's own such seconds against them."
    )


def _count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def score_name(metric: str) -> str:
    """`eval_entity_f1`, as Trainer reports it, in a reader's words: entity F1."""
    return metric.removeprefix("eval_").replace("_f1", " F1").replace("_", " ")


def count_bytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def _seconds(value: float) -> str:
    return f"{value:,.1f}"


def _times(value: float) -> str:
    return f"{value:.2f}"


def _score(value: float) -> str:
    return f"{value:.4f}"
