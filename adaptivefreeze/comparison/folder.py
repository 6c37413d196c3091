"""StudyFolder: where a study keeps its runs, and the guard that only runs of one study lie there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import RequestError
from .result import SCHEMA, FailedRun, ModelRecord, RunResult, TaskRecord, read_run, write_json
from .settings import StudySettings

WRITTEN = (
    "runs",
    "study.json",
    *("table.md", "table.csv", "plot.svg", "plot.png", "report.html"),
    *("search.json", "search.md", "search.csv", "search.svg", "search.png", "search.html"),
    *("study.db", "models", "rows"),
)
"""All that a study writes into its folder."""

_LONGEST_NAME = 150


class StudyFolder:
    """A folder with `study.json`, which says what was studied, and `runs/`, one file a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def run_path(self, scenario: str, seed: int) -> Path:
        """The file of one run: `runs/bottom-up:3-s0.json`."""
        return self.path / "runs" / f"{file_name(scenario)}-s{seed}.json"

    def checkpoints(self, scenario: str, seed: int) -> Path:
        """Where one run keeps its checkpoints, if the settings ask for any."""
        return self.path / "checkpoints" / f"{file_name(scenario)}-s{seed}"

    def runs(self) -> list[RunResult | FailedRun]:
        """All stored runs, by file name. Raises `RequestError` for a file that cannot be read."""
        return [read_run(path) for path in sorted((self.path / "runs").glob("*.json"))]

    def find(self, scenario: str, seed: int) -> RunResult | FailedRun | None:
        """The stored run of `scenario` and `seed`, or None."""
        path = self.run_path(scenario, seed)
        return read_run(path) if path.is_file() else None

    def store(self, run: RunResult | FailedRun) -> None:
        """Write `run` to its file, whole or not at all."""
        write_json(self.run_path(run.scenario, run.seed), run.to_json())

    def claim(self, task: TaskRecord, model: ModelRecord, settings: StudySettings) -> None:
        """Make the folder this study's, or make sure that it is.

        Raises `RequestError`, with nothing written, when it holds another study's results or somebody's files, or
        cannot be written.
        """
        mine = description(task, model, settings)
        marker = self.path / "study.json"
        if marker.is_file():
            found = difference(_read(marker), mine)
            if found:
                raise RequestError(f"{self.path} holds the results of another study ({found}): give another --output.")
            return
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"{self.path} is a file, not a folder: give another --output.")
        strangers = [name for name in WRITTEN if (self.path / name).exists()]
        if strangers:
            raise RequestError(
                f"{self.path} holds {' and '.join(strangers)} but no study.json, so they are not this study's: "
                "give another --output."
            )
        try:
            write_json(marker, mine)
        except OSError as error:
            raise RequestError(f"{self.path} cannot be written ({error.strerror}): give another --output.") from error


def file_name(scenario: str) -> str:
    """`scenario` as a part of a file name: other characters than letters, digits and `:=,.+-_~` are percent-encoded.

    >>> file_name("bottom-up:3"), file_name("modules:a/b")
    ('bottom-up:3', 'modules:a%2Fb')
    """
    name = quote(scenario, safe=":=,+")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(scenario.encode()).hexdigest()[:10]}"


def description(task: TaskRecord, model: ModelRecord, settings: StudySettings) -> dict[str, Any]:
    """What makes a study this one and no other, as plain JSON."""
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
    except (OSError, ValueError) as error:
        raise RequestError(f"{marker} cannot be read ({error}): give another --output.") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise RequestError(f"{marker} was written by another version: give another --output.")
    return value


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    """The first thing in which two studies differ, in words; None when their runs may stand in one table."""
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
