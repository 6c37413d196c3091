"""The data sets of a sequence of tasks, as folders that `load_task` reads."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import median

SHARED = {
    "PER": "PER", "PERSON": "PER",
    "LOC": "LOC", "LOCATION": "LOC", "GPE": "LOC",
    "ORG": "ORG", "ORGANISATION": "ORG",
}  # fmt: skip
"""Classes of both data sets, and what they are called here. All others become O."""

SPLITS = {"train": ("train",), "valid": ("valid", "validation", "dev"), "test": ("test",)}


def reduce_classes(source: Path, target: Path) -> Path:
    """Write the CoNLL files of `source` to `target` with the shared classes alone."""
    target.mkdir(parents=True, exist_ok=True)
    for split, names in SPLITS.items():
        file = next(path for name in names if (path := source / f"{name}.txt").is_file())
        lines = (_reduced(line) for line in file.read_text(encoding="utf-8").split("\n"))
        (target / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    return target


def _reduced(line: str) -> str:
    fields = line.split()
    if len(fields) < 2:
        return ""
    prefix, _, name = fields[-1].partition("-")
    return f"{fields[0]} {f'{prefix}-{SHARED[name]}' if name in SHARED else 'O'}"


def halves(source: Path, target: Path) -> dict[str, Path]:
    """Divide the CSV files of `source` at the median number of words of the training texts."""
    splits = {}
    for split in ("train", "validation", "test"):
        with (source / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
            splits[split] = list(csv.DictReader(stream))
    middle = median(_words(row) for row in splits["train"])
    folders = {name: target / name for name in ("short", "long")}
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, ("text", "label"))
                writer.writeheader()
                writer.writerows(row for row in rows if (_words(row) <= middle) == (name == "short"))
    return folders


def _words(row: Mapping[str, str]) -> int:
    return len(row["text"].split())
