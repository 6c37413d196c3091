"""Writes the files of a report: tables as Markdown, CSV and LaTeX, an HTML page, and figures on request."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..comparison.result import write_text
from ..errors import RequestError
from .figures import charts
from .formats import as_csv, classes_csv, latex, markdown
from .freeze_map import freeze_maps
from .load import load_runs, load_search
from .page import render
from .published import Published
from .summary import Summary


def publish(
    summaries: Sequence[Summary],
    folder: str | Path,
    *,
    figures: bool = False,
    published: Mapping[str, Published] | None = None,
) -> tuple[Path, ...]:
    """Write the report into `folder` and return the paths written, the page first.

    Comparisons are written to `report.html`, `table.md`, `table.csv`, `table.tex` and `classes.csv`; searches to
    `search.html`, `search.md`, `search.csv` and `search.tex`.

    Args:
        summaries: The studies: all comparisons, or all searches.
        folder: Where to write.
        figures: Also write each figure as SVG and PNG into `figures/`.
        published: Figures of a publication by scenario, to show beside those of the runs.
    """
    folder = Path(folder)
    table, page = ("table", "report") if summaries[0].search is None else ("search", "search")
    texts = {
        f"{page}.html": render(summaries, published),
        f"{table}.md": markdown(summaries, published),
        f"{table}.csv": as_csv(summaries),
        f"{table}.tex": latex(summaries),
    }
    if table == "table" and any(run.metrics for summary in summaries for run in summary.results):
        texts["classes.csv"] = classes_csv(summaries)
    for name, text in texts.items():
        write_text(folder / name, text)
    drawn = write_figures(summaries, folder / "figures", published) if figures else ()
    return (*(folder / name for name in texts), *drawn)


def write_figures(
    summaries: Sequence[Summary], folder: Path, published: Mapping[str, Published] | None = None
) -> tuple[Path, ...]:
    """Write every figure as SVG and PNG, and return the paths. With several studies, names begin with the study."""
    from .drawing import draw_chart, draw_map, png, svg

    written = []
    for number, summary in enumerate(summaries, 1):
        prefix = f"{number}-" if len(summaries) > 1 else ""
        drawn = {chart.key: draw_chart(chart) for chart in charts(summary, published)}
        drawn |= {f"freeze-map-{i}": draw_map(found) for i, found in enumerate(freeze_maps(summary), 1)}
        for name, figure in drawn.items():
            path = folder / f"{prefix}{name}.svg"
            write_text(path, svg(figure))
            part = folder / f".{prefix}{name}.png.part"
            part.write_bytes(png(figure))
            os.replace(part, path.with_suffix(".png"))
            written += [path, path.with_suffix(".png")]
    return tuple(written)


def publish_folders(
    folders: Sequence[Path],
    output: Path | None,
    *,
    figures: bool = False,
    published: Mapping[str, Published] | None = None,
) -> list[tuple[tuple[Summary, ...], tuple[Path, ...]]]:
    """Write the reports of stored folders again and return each with the paths written.

    All comparisons share one report, and all searches another.

    Args:
        folders: Folders written by `adaptivefreeze compare` or `search`.
        output: Where to write. None stands for the one folder, or for `runs/report` if there are several.
        figures: As for `publish`.
        published: As for `publish`.

    Raises:
        RequestError: If the folders hold nothing to report, or `output` cannot be used.
    """
    folders = list(dict.fromkeys(folders))
    target = choose_folder(folders, output)
    searches = {folder: found for folder in folders if (found := load_search(folder)) is not None}
    compared = [folder for folder in folders if folder not in searches or (folder / "runs").is_dir()]
    groups = (load_runs(compared) if compared else (), tuple(searches.values()))
    return [(group, publish(group, target, figures=figures, published=published)) for group in groups if group]


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
