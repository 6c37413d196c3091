"""Published figures of a study beside those of its reproduction."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from ..policies import is_full_fine_tuning, parse_policy
from .row import Row
from .summary import Summary


@dataclass(frozen=True)
class Published:
    """What a publication reports of one scenario: scores from 0 to 1, time in seconds on its machine."""

    macro_f1: float
    accuracy: float | None = None
    weighted_f1: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class Beside:
    """One published scenario, its row of the reproduction, and both speedups over full fine-tuning."""

    scenario: str
    published: Published
    row: Row
    speedup: float | None


def read_published(path: Path) -> dict[str, Published]:
    """Return published figures by scenario.

    Args:
        path: A CSV file with the columns `scenario` and `macro_f1` and, where they are known, `accuracy`,
            `weighted_f1` and `train_seconds`. Scores above 1 are taken as points.

    Raises:
        RequestError: If the file cannot be read or lacks the first two columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["scenario"]: _published(row) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RequestError(f"{path} is no CSV file with the columns scenario and macro_f1 ({error}).") from error


def _published(row: Mapping[str, str]) -> Published:
    seconds = row.get("train_seconds")
    return Published(
        macro_f1=_share(row["macro_f1"]),
        accuracy=_share(row["accuracy"]) if row.get("accuracy") else None,
        weighted_f1=_share(row["weighted_f1"]) if row.get("weighted_f1") else None,
        train_seconds=float(seconds) if seconds else None,
    )


def _share(text: str) -> float:
    score = float(text)
    return score / 100 if score > 1 else score


def beside(summary: Summary, published: Mapping[str, Published]) -> tuple[Beside, ...]:
    """Return the published scenarios that the study has, in their order. All spellings of full fine-tuning are one.

    A published speedup is over the full fine-tuning of the same name, `bottom-up:0` or `top-down:0`, if there is one.
    """
    rows = {row.scenario: row for row in summary.rows if row.macro_f1 is not None}
    full = next((row for row in rows.values() if row.highlighted), None)
    seconds = {name: found.train_seconds for name, found in published.items() if _is_full(name, summary)}
    bases = {name.partition(":")[0]: found for name, found in reversed(seconds.items())}
    found = []
    for name, figures in published.items():
        row = rows.get(name) or (full if name in seconds else None)
        if row is not None:
            base = bases.get(name.partition(":")[0]) or next(iter(seconds.values()), None)
            ratio = base / figures.train_seconds if base and figures.train_seconds else None
            found.append(Beside(name, figures, row, ratio))
    return tuple(found)


def _is_full(scenario: str, summary: Summary) -> bool:
    depth = summary.runs[0].model.blocks if summary.runs else 0
    return is_full_fine_tuning(parse_policy(scenario), depth)
