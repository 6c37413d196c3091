"""Writes the files of a report: a table as Markdown and CSV, the main figure as SVG and PNG, and an HTML page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..comparison.result import write_text
from ..errors import RequestError
from .drawing import draw_all, png, svg
from .load import load_runs, load_search
from .page import render
from .summary import Summary
from .table import as_csv, markdown


def publish(summary: Summary, folder: str | Path) -> tuple[Path, ...]:
    """Write the report into `folder` and return the paths written.

    A comparison writes `table.md`, `table.csv`, `report.html` and, if a run was scored on the test split, `plot.svg`
    and `plot.png`. A search writes `search.md`, `.csv`, `.html`, `.svg` and `.png`.
    """
    folder = Path(folder)
    table, plot, page = ("table", "plot", "report") if summary.search is None else ("search", "search", "search")
    drawn = draw_all(summary)
    drawings = {name: svg(figure) for name, figure in drawn.items()}
    texts = {
        f"{table}.md": markdown(summary),
        f"{table}.csv": as_csv(summary),
        f"{page}.html": render(summary, tuple(drawings.values())),
        **({f"{plot}.svg": drawings[plot]} if plot in drawings else {}),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    if plot not in drawn:
        return tuple(folder / name for name in texts)
    part = folder / f".{plot}.png.part"
    part.write_bytes(png(drawn[plot]))
    os.replace(part, folder / f"{plot}.png")
    return tuple(folder / name for name in (*texts, f"{plot}.png"))


def publish_folders(folders: Sequence[Path], output: Path | None) -> list[tuple[Summary, tuple[Path, ...]]]:
    """Write the reports of stored folders again and return each with the paths written.

    The runs of all folders share one report. The search of a single folder has a report of its own.

    Args:
        folders: Folders written by `adaptivefreeze compare` or `search`.
        output: Where to write. None stands for the one folder, or for `runs/report` if there are several.

    Raises:
        RequestError: If the folders hold nothing to report, cannot share a table, or `output` cannot be used.
    """
    folders = list(dict.fromkeys(folders))
    target = choose_folder(folders, output)
    search = load_search(folders[0]) if len(folders) == 1 else None
    has_runs = any((folder / "runs").is_dir() for folder in folders)
    summaries = [load_runs(folders)] if has_runs or search is None else []
    return [(summary, publish(summary, target)) for summary in (*summaries, *([search] if search else []))]


def choose_folder(folders: Sequence[Path], output: Path | None) -> Path:
    """Return where the report of `folders` goes: `output`, the one folder, or `runs/report` if there are several.

    Raises:
        RequestError: If the folder is a file, or holds a study that is not among `folders`.
    """
    target = output or (folders[0] if len(folders) == 1 else Path("runs/report"))
    among = target.resolve() in {folder.resolve() for folder in folders}
    if not among and (target / "study.json").exists():
        raise RequestError(f"{target} holds another study: give another --output.")
    if target.exists() and not target.is_dir():
        raise RequestError(f"{target} is a file, not a folder: give another --output.")
    return target
