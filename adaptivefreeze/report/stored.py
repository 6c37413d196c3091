"""Stored runs of one or several study folders, as one Summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..comparison.folder import StudyFolder
from ..comparison.result import FailedRun, RunResult
from ..errors import RequestError
from .summary import Summary


def load(folders: Sequence[str | Path]) -> Summary:
    """The runs of `folders` together.

    Raises `RequestError` for a folder without runs, for runs of different tasks, models or settings, and for one
    run that lies in two folders.
    """
    found: dict[tuple[str, int], Path] = {}
    runs: list[RunResult | FailedRun] = []
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        stored = StudyFolder(folder).runs()
        if not stored:
            raise RequestError(f"{folder} holds no runs: give the --output folder of `adaptivefreeze compare`.")
        for run in stored:
            key = (run.scenario, run.seed)
            if key in found:
                raise RequestError(
                    f"{run.scenario} with seed {run.seed} lies in {found[key]} and in {folder}: give one of them."
                )
            found[key] = folder
            if runs:
                _check_alike(runs[0], found[(runs[0].scenario, runs[0].seed)], run, folder)
            runs.append(run)
    return Summary.of(runs)


def _check_alike(one: RunResult | FailedRun, there: Path, other: RunResult | FailedRun, here: Path) -> None:
    pairs = (
        ("data set", (one.task.dataset, one.task.fingerprint), (other.task.dataset, other.task.fingerprint)),
        ("model", (one.model.name, one.model.fingerprint), (other.model.name, other.model.fingerprint)),
    )
    for what, (name, mark), (other_name, other_mark) in pairs:
        if mark != other_mark:
            raise RequestError(
                f"{there} and {here} do not stand in one table: the {what} is {name} ({mark}) in one and "
                f"{other_name} ({other_mark}) in the other."
            )
    for key in sorted({*one.settings, *other.settings}):
        if one.settings.get(key) != other.settings.get(key):
            raise RequestError(
                f"{there} and {here} do not stand in one table: {key.replace('_', ' ')} is {one.settings.get(key)} "
                f"in one and {other.settings.get(key)} in the other."
            )
