"""What a person sees in the terminal when a command has done its work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..comparison.result import FailedRun, Metrics, RunResult
from .inspection import renderables
from .search_table import caption as search_caption
from .search_table import terminal as search_terminal
from .summary import Summary
from .table import caption, columns, terminal, title

if TYPE_CHECKING:
    from rich.console import Console

    from ..comparison.inspection import Inspection
    from ..search import DepthSearch

_WIDE = 250
"""Columns of what is no terminal: a table in a file or a pipe is not folded."""


def show_study(summary: Summary, written: Sequence[Path], console: Console | None = None) -> None:
    """The table of a study, its warnings and failures, and what was written where."""
    console = console or _console()
    _say(console, title(summary))
    console.print()
    table = terminal(summary, console)
    console.print(table)
    console.print()
    if len(table.columns) <= len(columns(summary)):
        _say(console, "The terminal is too narrow for all columns: they are in table.md.")
    _say(console, caption(summary))
    for warning in summary.warnings:
        _say(console, f"Warning: {warning}", "yellow")
    for run in summary.failures:
        _say(console, f"Failed: {run.scenario}, seed {run.seed}. {run.error}", "red")
    _say(console, f"Written to {written[0].parent}: {', '.join(path.name for path in written)}")
    if summary.failures:
        _say(console, "The same command runs the failed runs again.")


def show_search(search: DepthSearch, written: Sequence[Path], console: Console | None = None) -> None:
    """The answer of a search: the table, the sentences, what failed, and what was written where."""
    console = console or _console()
    _say(console, search.title[:1].upper() + search.title[1:])
    console.print()
    console.print(search_terminal(search))
    console.print()
    for sentence in search.words:
        _say(console, sentence)
    _say(console, search_caption(search))
    for outcome in search.failures:
        _say(console, f"Failed: {outcome.name}. {outcome.error}", "red")
    _say(console, f"Written to {written[0].parent}: {', '.join(path.name for path in written)}")
    _say(console, f"The study {search.study!r} lies in {search.storage}; optuna-dashboard opens it.")
    if search.failures:
        _say(console, "The same command runs the failed trainings again.")


def show_again(shown: Sequence[tuple[Summary | DepthSearch, Sequence[Path]]], console: Console | None = None) -> None:
    """What was made again from stored runs and searches."""
    for what, written in shown:
        if isinstance(what, Summary):
            show_study(what, written, console)
        else:
            show_search(what, written, console)


def show_training(run: RunResult | FailedRun, folder: Path, console: Console | None = None) -> None:
    """The outcome of one training."""
    console = console or _console()
    if isinstance(run, FailedRun):
        _say(console, f"Failed: {run.error}", "red")
        return
    told = "not looked at" if run.metrics is None else _told(run.metrics)
    _say(console, f"{run.scenario}: {run.train_seconds:.1f} s of training, {run.steps} steps; test {told}")
    _say(console, f"Model, tokenizer and result.json are in {folder}.")


def _told(metrics: Metrics) -> str:
    scores = [("accuracy", metrics.accuracy), ("macro F1", metrics.macro_f1), ("weighted F1", metrics.weighted_f1)]
    if metrics.entity_f1 is not None:
        scores.append(("entity F1", metrics.entity_f1))
    return ", ".join(f"{name} {score:.4f}" for name, score in scores)


def show_inspection(inspection: Inspection, console: Console | None = None) -> None:
    """Units, depths and how the tokenizer copes."""
    console = console or _console()
    for part in renderables(inspection):
        console.print(part)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def _say(console: Console, sentence: str, style: str | None = None) -> None:
    console.print(sentence, style=style, markup=False, highlight=False, soft_wrap=True)
