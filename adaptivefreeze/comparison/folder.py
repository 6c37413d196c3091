"""`StudyFolder`: the folder that stores the runs of one study, and no others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import RequestError
from .result import SCHEMA, FailedRun, ModelRecord, RunResult, TaskRecord, read_record, read_run, write_json
from .settings import StudySettings

WRITTEN = (
    "runs",
    "study.json",
    *("table.md", "table.csv", "table.tex", "classes.csv", "report.html", "figures"),
    *("search.json", "search.md", "search.csv", "search.tex", "search.html"),
    *("study.db", "models", "rows"),
)
"""Everything that a study writes to its folder."""

_LONGEST_NAME = 150


class StudyFolder:
    """A folder with `study.json`, which identifies the study, and `runs/` with one file per run.

    Args:
        path: The folder, which need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def run_path(self, scenario: str, seed: int) -> Path:
        """Return the file of one run, such as `runs/bottom-up:3-s0.json`."""
        return self.path / "runs" / f"{file_name(scenario)}-s{seed}.json"

    def checkpoints(self, scenario: str, seed: int) -> Path:
        """Return the folder for the checkpoints of one run."""
        return self.path / "checkpoints" / f"{file_name(scenario)}-s{seed}"

    def runs(self) -> list[RunResult | FailedRun]:
        """Return all stored runs in the order of their file names.

        Raises:
            RequestError: A file cannot be read.
        """
        return [read_run(path) for path in sorted((self.path / "runs").glob("*.json"))]

    def find(self, scenario: str, seed: int) -> RunResult | FailedRun | None:
        """Return the stored run of `scenario` and `seed`, or None."""
        path = self.run_path(scenario, seed)
        return read_run(path) if path.is_file() else None

    def store(self, run: RunResult | FailedRun) -> None:
        """Write `run` to its file atomically."""
        write_json(self.run_path(run.scenario, run.seed), run.to_json())

    def claim(self, task: TaskRecord, model: ModelRecord, settings: StudySettings) -> None:
        """Reserve the folder for a study by writing `study.json`, or check that it belongs to it.

        Raises:
            RequestError: The folder contains the results of another study or other files of the same names, or cannot
                be written. Nothing is written.
        """
        mine = description(task, model, settings)
        marker = self.path / "study.json"
        if marker.is_file():
            found = difference(_read(marker), mine)
            if found:
                raise RequestError(
                    f"{self.path} contains the results of another study ({found}): choose another --output."
                )
            return
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"{self.path} is a file, not a folder: choose another --output.")
        unknown = [name for name in WRITTEN if (self.path / name).exists()]
        if unknown:
            raise RequestError(
                f"{self.path} contains {' and '.join(unknown)} but no study.json: choose another --output."
            )
        try:
            write_json(marker, mine)
        except OSError as error:
            raise RequestError(f"{self.path} cannot be written ({error.strerror}): choose another --output.") from error

    def plan(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Add the (scenario, seed) pairs that the study is to have to `study.json`, after `claim`."""
        marker = self.path / "study.json"
        value = _read(marker)
        planned = {scenario: list(seeds) for scenario, seeds in _planned(value).items()}
        for scenario, seed in wanted:
            seeds = planned.setdefault(scenario, [])
            if seed not in seeds:
                seeds.append(seed)
        if planned != value.get("planned"):
            write_json(marker, {**value, "planned": planned})

    def missing(self, stored: Iterable[RunResult | FailedRun]) -> list[tuple[str, int]]:
        """Return the planned (scenario, seed) pairs that are not among the `stored` runs.

        Raises:
            RequestError: `study.json` cannot be read.
        """
        marker = self.path / "study.json"
        if not marker.is_file():
            return []
        done = {(run.scenario, run.seed) for run in stored}
        planned = ((scenario, seed) for scenario, seeds in _planned(_read(marker)).items() for seed in seeds)
        return [pair for pair in planned if pair not in done]


def file_name(scenario: str) -> str:
    """Return `scenario` as part of a file name, with all but letters, digits and `:=,+.-_~` percent-encoded.

    Example:
        >>> file_name("bottom-up:3"), file_name("modules:a/b")
        ('bottom-up:3', 'modules:a%2Fb')
    """
    name = quote(scenario, safe=":=,+")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(scenario.encode()).hexdigest()[:10]}"


def description(task: TaskRecord, model: ModelRecord, settings: StudySettings) -> dict[str, Any]:
    """Return what identifies a study, as plain JSON."""
    return {
        "schema": SCHEMA,
        "task": {
            "kind": task.kind,
            "dataset": task.dataset,
            "fingerprint": task.fingerprint,
            "train_examples": task.train_examples,
        },
        "model": {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "blocks": model.blocks,
            "parameters": model.parameters,
        },
        "settings": json.loads(json.dumps(settings.to_json())),
    }


def _read(marker: Path) -> dict[str, Any]:
    try:
        value = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{marker} is damaged ({error}): choose another --output. `adaptivefreeze report {marker.parent}` still "
            "shows the runs beside it."
        ) from error
    parts = ("task", "model", "settings", "search")
    if not isinstance(value, dict) or not all(isinstance(value.get(part, {}), dict) for part in parts):
        raise RequestError(f"{marker} does not describe a study: choose another --output.")
    try:
        _planned(value)
    except ValueError as error:
        raise RequestError(f"{marker} does not describe a study ({error}): choose another --output.") from error
    if value.get("schema") != SCHEMA:
        raise RequestError(f"{marker} was written by another version: choose another --output.")
    return value


def _planned(study: Mapping[str, Any]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = read_record(dict[str, list[int]], study.get("planned", {}))
    return found


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    """Return the first difference between two studies in words, or None if their runs are comparable."""
    for part, name in (("task", "dataset"), ("model", "name")):
        there, here = theirs.get(part, {}), mine[part]
        if there.get("fingerprint") != here["fingerprint"]:
            if there.get(name) != here[name]:
                return f"its {part} is {there.get(name)}, not {here[name]}"
            what = "data, its order, --limit, --max-length or tokenizer" if part == "task" else "starting weights"
            return f"its {part} {here[name]} has other {what}"
    for part in ("settings", "search"):
        there, here = theirs.get(part, {}), mine.get(part, {})
        for key in sorted({*there, *here}):
            if there.get(key) != here.get(key):
                return f"its {key.replace('_', ' ')} is {there.get(key)}, not {here.get(key)}"
    return None
