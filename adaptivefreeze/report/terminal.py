"""What the commands print when they are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..comparison.result import FailedRun, RunResult
from .side_by_side import comparable
from .summary import Summary
from .table import caption, columns, terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from ..comparison.inspection import Inspection
    from ..data import Task

_PIPE_WIDTH = 250
"""Columns of output that goes to a file or a pipe, so that no table is folded."""


def show_report(summaries: Sequence[Summary], written: Sequence[Path], console: Console | None = None) -> None:
    """Print each study's answer, table, findings, warnings and failures, and which files were written."""
    console = console or _console()
    for summary in summaries:
        _show_study(summary, written[0], console)
    for sentence in comparable(summaries):
        _print(console, sentence)
    _print(console, f"Written to {written[0].parent}: {', '.join(path.name for path in written[1:])}")
    if any(summary.failures for summary in summaries):
        _print(console, "Run the same command again to retry the failed runs.")
    for summary in summaries:
        _print(console, f"{summary.name}: {summary.answer}" if len(summaries) > 1 else summary.answer, "bold")
    _print(console, f"Page: {written[0]}")


def _show_study(summary: Summary, page: Path, console: Console) -> None:
    _print(console, summary.answer, "bold")
    _print(console, summary.title)
    console.print()
    table = terminal(summary, console)
    console.print(table)
    console.print()
    for finding in summary.findings:
        _print(console, finding)
    if len(table.columns) < len(columns(summary)):
        _print(console, f"The terminal is too narrow for all columns: see {page.name}.")
    _print(console, caption(summary))
    for warning in summary.warnings:
        _print(console, f"Warning: {warning}", "yellow")
    for failure in summary.failures:
        _print(console, f"Failed: {failure}", "red")
    if search := summary.search:
        _print(console, f"Optuna study {search.study!r} is stored in {search.storage}; open it with optuna-dashboard.")


def show_training(run: RunResult | FailedRun, folder: Path, console: Console | None = None) -> None:
    """Print the result of one training and where the model was saved."""
    console = console or _console()
    if isinstance(run, FailedRun):
        _print(console, f"Failed: {run.error}", "red")
        return
    scores = "not measured"
    if run.metrics is not None:
        m = run.metrics
        known = {"accuracy": m.accuracy, "macro F1": m.macro_f1, "weighted F1": m.weighted_f1, "entity F1": m.entity_f1}
        scores = ", ".join(f"{name} {score:.4f}" for name, score in known.items() if score is not None)
    _print(console, f"{run.scenario}: {run.train_seconds:.1f} s of training, {run.steps} steps; test scores: {scores}")
    _print(console, f"Model, tokenizer and result.json are in {folder}.")


def show_inspection(inspection: Inspection, console: Console | None = None) -> None:
    """Print a model's units, the predicted cost of each depth, and the tokenizer's coverage of a data set."""
    console = console or _console()
    for part in _inspection(inspection):
        console.print(part)


def _inspection(inspection: Inspection) -> Iterator[RenderableType]:
    from rich.text import Text

    stack, shape = inspection.stack, inspection.shape
    yield Text(
        f"{inspection.name}: {stack.model_name}, {stack.depth} blocks of width {stack.hidden_size}, "
        f"{stack.total:,} parameters"
    )
    yield _table(
        ("unit", "parameters", "share"),
        [(unit.name, f"{unit.size:,}", f"{unit.size / stack.total:.1%}") for unit in stack.units],
    )
    for sentence in stack.shared:
        yield Text(sentence)
    full = inspection.full_step_seconds

    def step(ratio: float) -> str:
        return f"{ratio:.2f}" if full is None else f"{ratio:.2f} ({_seconds(ratio * full)})"

    yield Text(
        "Predicted step time / full step" + ("" if full is None else f", and in seconds: {_seconds(full)} measured")
    )
    yield _table(
        ("blocks", "bottom-up", "cached", "trainable", "top-down", "trainable"),
        [
            (
                str(depth.k),
                step(depth.bottom_up_ratio),
                step(depth.bottom_up_cached_ratio) if depth.k else "–",
                f"{depth.bottom_up_trainable:,}",
                step(depth.top_down_ratio),
                f"{depth.top_down_trainable:,}",
            )
            for depth in inspection.depths
        ],
    )
    yield Text(
        f"For {shape.examples} examples of {shape.tokens} tokens per step. Bottom-up also freezes the embeddings; "
        "top-down does not."
    )
    yield from _forecasts(inspection)
    if inspection.task is not None:
        yield Text(f"Tokenizer coverage of {inspection.task.dataset}")
        yield _coverage(inspection.task)
        for warning in inspection.task.warnings:
            yield Text(f"Warning: {warning}", style="yellow")


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


def _forecasts(inspection: Inspection) -> Iterator[RenderableType]:
    from rich.text import Text

    if not inspection.forecasts or inspection.settings is None:
        return
    yield Text(f"Predicted runs of {inspection.settings.epochs:g} epochs on this machine, from a few steps of each")
    has_energy = any(forecast.joules is not None for forecast in inspection.forecasts)
    rows = []
    for forecast in (f for f in inspection.forecasts if f.failure is None):
        joules = "–" if forecast.joules is None else f"{forecast.joules:,.0f}"
        rows.append(
            (
                "full fine-tuning" if forecast.scenario == "nothing" else forecast.scenario,
                f"{forecast.seconds:,.1f}",
                f"{forecast.filling_seconds:,.1f}" if forecast.filling_seconds else "–",
                f"{forecast.peak_memory_bytes / 1e6:,.0f}",
                f"{forecast.cache_bytes / 1e6:,.0f}" if forecast.cache_bytes else "–",
                *((joules,) if has_energy else ()),
            )
        )
    heads = ("run", "seconds", "filling the cache", "peak memory, MB", "cache, MB")
    yield _table((*heads, "joules") if has_energy else heads, rows)
    for forecast in inspection.forecasts:
        if forecast.failure is not None:
            yield Text(f"{forecast.scenario}: {forecast.failure}", style="yellow")


def _coverage(task: Task) -> Table:
    coverage = task.coverage
    return _table(
        ("coverage", ""),
        [
            ("examples", f"{coverage.examples:,}"),
            ("words", f"{coverage.words:,}"),
            ("subwords per word", f"{coverage.subwords_per_word:.2f}"),
            ("words with an unknown subword", f"{coverage.unknown_word_share:.2%}"),
            (f"examples truncated to {task.max_length} tokens", f"{coverage.truncated_example_share:.2%}"),
            ("words lost by truncation", f"{coverage.truncated_words:,}"),
        ],
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _print(console: Console, sentence: str, style: str | None = None) -> None:
    console.print(sentence, style=style, markup=False, highlight=False, soft_wrap=True)
