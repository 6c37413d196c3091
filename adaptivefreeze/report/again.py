"""Tables, plots and pages again, from the folders that studies have written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .publish import choose_folder, publish
from .search import load_search, publish_search
from .stored import load
from .summary import Summary

if TYPE_CHECKING:
    from ..search import DepthSearch


def publish_again(folders: Sequence[Path], output: Path | None) -> list[tuple[Summary | DepthSearch, tuple[Path, ...]]]:
    """Write what the runs of all `folders` together have to show, and what the one folder's search has; and return it
    with the paths. Several folders with a search stand in one table by their runs.

    Raises `RequestError` for folders without runs or that do not go together, and for a wrong `output`.
    """
    target = choose_folder(folders, output)
    search = load_search(folders[0]) if len(set(folders)) == 1 else None
    has_runs = any((folder / "runs").is_dir() for folder in folders)
    shown: list[tuple[Summary | DepthSearch, tuple[Path, ...]]] = []
    if has_runs or search is None:
        summary = load(folders)
        shown.append((summary, publish(summary, target)))
    if search is not None:
        shown.append((search, publish_search(search, target)))
    return shown
