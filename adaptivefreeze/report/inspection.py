"""What `adaptivefreeze inspect` shows: units, cost of each depth, and how a tokenizer copes, as terminal tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..comparison.inspection import Inspection

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ..data import Task


def renderables(inspection: Inspection) -> Iterator[RenderableType]:
    """The tables, one after another."""
    from rich.text import Text

    stack = inspection.stack
    yield Text(
        f"{inspection.name}: {stack.model_name}, {stack.depth} blocks of width {stack.hidden_size}, "
        f"{stack.total:,} parameters"
    )
    yield _units(inspection)
    for sentence in stack.shared:
        yield Text(sentence)
    yield _depths(inspection)
    shape = inspection.shape
    yield Text(
        f"For {shape.examples} examples of {shape.tokens} tokens a step. Bottom-up freezes the embeddings too, "
        "top-down leaves them trainable."
    )
    if inspection.task is not None:
        yield Text(f"How the tokenizer copes with {inspection.task.dataset}")
        yield _coverage(inspection.task)
        for sentence in inspection.task.warnings:
            yield Text(f"Warning: {sentence}", style="yellow")


def _units(inspection: Inspection) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("unit", box=box.SIMPLE_HEAD)
    table.add_column("parameters", justify="right")
    table.add_column("share", justify="right")
    for unit in inspection.stack.units:
        table.add_row(unit.name, f"{unit.size:,}", f"{unit.size / inspection.stack.total:.1%}")
    return table


def _depths(inspection: Inspection) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title="Predicted step time / full step",
        title_justify="left",
    )
    for name in ("blocks", "bottom-up", "trainable", "top-down", "trainable"):
        table.add_column(name, justify="right")
    for depth in inspection.depths:
        table.add_row(
            str(depth.k),
            f"{depth.bottom_up_ratio:.2f}",
            f"{depth.bottom_up_trainable:,}",
            f"{depth.top_down_ratio:.2f}",
            f"{depth.top_down_trainable:,}",
        )
    return table


def _coverage(task: Task) -> Table:
    from rich import box
    from rich.table import Table

    coverage = task.coverage
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("examples", f"{coverage.examples:,}")
    table.add_row("words", f"{coverage.words:,}")
    table.add_row("pieces a word", f"{coverage.pieces_per_word:.2f}")
    table.add_row("words with an unknown piece", f"{coverage.unknown_word_share:.2%}")
    table.add_row(f"examples cut at {task.max_length} pieces", f"{coverage.cut_example_share:.2%}")
    table.add_row("words lost by that", f"{coverage.cut_words:,}")
    return table
