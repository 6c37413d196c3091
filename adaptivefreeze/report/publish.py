"""Writes what a study has to show: table.md, table.csv, plot.svg, plot.png and report.html."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from ..comparison.result import write_text
from ..errors import RequestError
from .page import render
from .plot import draw, svg, trade_off
from .summary import Summary
from .table import as_csv, markdown


def publish(summary: Summary, folder: str | Path) -> tuple[Path, ...]:
    """Write all files into `folder` and return their paths; the plot needs a run scored on the test split."""
    folder = Path(folder)
    texts = {"table.md": markdown(summary), "table.csv": as_csv(summary), "report.html": render(summary)}
    written = []
    shown = trade_off(summary) if summary.results else None
    if shown is not None and shown.points:
        figure = draw(shown)
        texts["plot.svg"] = svg(figure)
    for name, text in texts.items():
        write_text(folder / name, text)
        written.append(folder / name)
    if shown is not None and shown.points:
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150)
        part = folder / ".plot.png.part"
        part.write_bytes(image.getvalue())
        os.replace(part, folder / "plot.png")
        written.append(folder / "plot.png")
    return tuple(written)


def choose_folder(folders: Sequence[Path], output: Path | None) -> Path:
    """Where the report of `folders` goes: into the one folder, or into `output` (by default `runs/report`).

    Raises `RequestError` when that would write over the tables of a study that is not among them.
    """
    target = output or (folders[0] if len(folders) == 1 else Path("runs/report"))
    among = target.resolve() in {folder.resolve() for folder in folders}
    if not among and (target / "study.json").exists():
        raise RequestError(f"{target} holds another study: give another --output.")
    if target.exists() and not target.is_dir():
        raise RequestError(f"{target} is a file, not a folder: give another --output.")
    return target
