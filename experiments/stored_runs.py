"""The runs of a study in one file, so that they can be committed: JSON lines, from which the study goes on.

The first line is what all runs of the study have in common: its `study.json`, and the fields of `SHARED` of its runs.
Each further line is one finished run without these fields. Nothing else is left out, but numbers of signals are
rounded to four digits, and of a model in a folder only the folder's own name stays. A failed run is not stored, since
the same command repeats it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptivefreeze.comparison.folder import StudyFolder, difference
from adaptivefreeze.comparison.result import RunResult, write_json, write_text

SHARED = ("task", "model", "settings", "environment")


def pack(folder: Path, file: Path) -> None:
    """Write all finished runs of the study in `folder` to `file`."""
    runs = [run.to_json() for run in StudyFolder(folder).runs() if isinstance(run, RunResult)]
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    for record in (study, *runs):
        record["model"]["name"] = _without_path(record["model"]["name"])
    common = {name: runs[0][name] for name in SHARED} if runs else {}
    lines = [{"study": study, **common}]
    for run in sorted(runs, key=lambda run: (run["scenario"], run["seed"])):
        kept = {name: value for name, value in run.items() if name not in SHARED or value != common[name]}
        kept["signals"] = [{**signal, "values": _rounded(signal["values"])} for signal in run["signals"]]
        lines.append(kept)
    texts = (json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for line in lines)
    write_text(file, "".join(f"{text}\n" for text in texts))


def unpack(file: Path, folder: Path) -> None:
    """Put the runs of `file` into the study folder `folder`, except those that it has. Without a file, do nothing.

    Raises:
        SystemExit: The folder is of a study with other data, model or settings.
    """
    if not file.is_file():
        return
    marker = folder / "study.json"
    if marker.is_file():
        there = json.loads(marker.read_text(encoding="utf-8"))
        if other := difference(there, _study(file)):
            raise SystemExit(f"{folder} contains another study than {file} ({other}): move one of them.")
    for run in read(file):
        path = StudyFolder(folder).run_path(run.scenario, run.seed)
        if not path.is_file():
            write_json(path, run.to_json())
    if not marker.is_file():
        write_json(marker, _study(file))


def _study(file: Path) -> dict[str, Any]:
    with file.open(encoding="utf-8") as stream:
        study: dict[str, Any] = json.loads(stream.readline())["study"]
    return study


def read(file: Path) -> list[RunResult]:
    """Return the runs of `file`."""
    first, *rest = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    common: dict[str, Any] = {name: first[name] for name in SHARED if name in first}
    return [RunResult.from_json({**common, **line}) for line in rest]


def _without_path(name: str) -> str:
    """`e5-small` of `/models/e5-small`; a name on the hub stays as it is."""
    return Path(name).name if name.startswith((".", "/")) or Path(name).is_dir() else name


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
