"""The table of a search: a row a depth, then the baselines; written for Markdown, for CSV and for the terminal."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from .table import NOTHING, count_bytes, score_name

if TYPE_CHECKING:
    from rich.table import Table

    from ..search import DepthSearch, Outcome


def heads(search: DepthSearch) -> list[str]:
    """The titles of the columns."""
    name = "depth" if search.best.depth is not None else "candidate"
    certain = ["95 % interval", "P(best)"] if len(search.units) > 1 else []
    score = score_name(search.metric)
    return [name, score, *certain, "train s", "×", "peak memory", f"test {score}"]


def cells(search: DepthSearch, outcome: Outcome) -> list[str]:
    """One row, as text."""
    sure = outcome.certainty
    score = interval = probability = NOTHING
    if sure is not None:
        score = f"{sure.mean:.4f}" + (f" ± {sure.sd:.4f}" if sure.sd is not None else "")
        if sure.low is not None and sure.high is not None:
            interval = f"{sure.low:.4f} to {sure.high:.4f}"
        if sure.best is not None:
            probability = f"{sure.best:.0%}"
    certain = [interval, probability] if len(search.units) > 1 else []
    return [
        label(search, outcome),
        score,
        *certain,
        NOTHING if outcome.seconds is None else f"{outcome.seconds:,.1f}",
        NOTHING if outcome.speedup is None else f"{outcome.speedup:.2f}",
        NOTHING if outcome.memory is None else count_bytes(outcome.memory),
        f"{outcome.test[search.metric]:.4f}" if search.metric in outcome.test else NOTHING,
    ]


def label(search: DepthSearch, outcome: Outcome) -> str:
    """The depth or the name, and what it is: `4 (k*)`, `5 (given up)`."""
    name = outcome.name if outcome.depth is None else str(outcome.depth)
    marks = ["k*"] * (outcome.name == search.best.name) + ["k_fast"] * (outcome.name == search.fast.name)
    marks += ["given up"] * outcome.pruned + ["failed"] * (outcome.error is not None)
    marks += ["on the front"] * (outcome.on_front and outcome.role == "sample")
    return f"{name} ({', '.join(marks)})" if marks else name


def rows(search: DepthSearch) -> list[tuple[Outcome, list[str]]]:
    """All rows, the baselines last."""
    return [(outcome, cells(search, outcome)) for outcome in (*search.outcomes, *search.baselines)]


def markdown(search: DepthSearch) -> str:
    """The table as GitHub reads it, and the sentences."""
    titles = heads(search)
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join(["---", *("---:" for _ in titles[1:])]) + " |"]
    for _, (name, *values) in rows(search):
        escaped = name.replace("|", "\\|")
        lines.append(f"| `{escaped}` | " + " | ".join(values) + " |")
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in search.words), "", caption(search), ""])


def as_csv(search: DepthSearch) -> str:
    """The table for programs: plain numbers, empty where nothing is known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measured = [
        "mean",
        "sd",
        "low",
        "high",
        "probability_best",
        "train_seconds",
        "speedup",
        "peak_memory_bytes",
        "test",
    ]
    writer.writerow(["scenario", "role", "depth", "learning_rate", *search.units, *measured])
    for outcome in (*search.outcomes, *search.baselines):
        sure = outcome.certainty
        certain = [None] * 5 if sure is None else [sure.mean, sure.sd, sure.low, sure.high, sure.best]
        scores = [*outcome.scores, *[None] * (len(search.units) - len(outcome.scores))]
        costs = [outcome.seconds, outcome.speedup, outcome.memory, outcome.test.get(search.metric)]
        values = [outcome.depth, outcome.learning_rate, *scores, *certain, *costs]
        writer.writerow([outcome.scenario, outcome.role, *("" if value is None else value for value in values)])
    return text.getvalue()


def terminal(search: DepthSearch) -> Table:
    """The table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    first, *others = heads(search)
    table.add_column(first, overflow="fold")
    for title in others:
        table.add_column("\n".join(title.rsplit(" ", 1)), justify="right", vertical="bottom")
    for outcome, values in rows(search):
        chosen = outcome.name in (search.best.name, search.fast.name)
        table.add_row(*map(Text, values), style="bold" if chosen else None)
    return table


def caption(search: DepthSearch) -> str:
    """How to read the numbers."""
    metric = score_name(search.metric)
    over = f"mean ± standard deviation over {', '.join(search.units)}" if len(search.units) > 1 else search.units[0]
    certain = " Interval and P(best): bootstrap, the same draws for every row." if len(search.units) > 1 else ""
    return (
        f"{metric[0].upper()}{metric[1:]} on validation examples, {over}.{certain} Train s: steps alone, of a run "
        "that finds no rows of other runs. ×: against full fine-tuning. Test: looked at once, for what was chosen."
    )
