"""F1 per class and scenario: which classes freezing costs most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..comparison.result import RunResult
from .figures import static_depth
from .summary import Summary


@dataclass(frozen=True)
class ClassRow:
    """One class: its test examples and its mean F1 in each scenario, None where it was not measured."""

    label: str
    support: float
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class ClassTable:
    """F1 per class, the rare classes first, and a sentence about the class that a deeper freeze costs most."""

    scenarios: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    finding: str = ""


def class_table(summary: Summary) -> ClassTable:
    """Return the table of the runs that were scored on the test split; it is empty if there are none."""
    scenarios: dict[str, list[RunResult]] = {}
    for run in summary.results:
        if run.metrics is not None:
            scenarios.setdefault(run.scenario, []).append(run)
    supports: dict[str, float] = {}
    for runs in scenarios.values():
        for run in runs:
            for label, values in run.metrics.per_class.items() if run.metrics else ():
                supports.setdefault(label, float(values.get("support", 0)))
    rows = tuple(
        ClassRow(label, support, tuple(_mean(label, runs) for runs in scenarios.values()))
        for label, support in sorted(supports.items(), key=lambda item: (item[1], item[0]))
    )
    return ClassTable(tuple(scenarios), rows, _finding(scenarios, rows))


def _mean(label: str, runs: Sequence[RunResult]) -> float | None:
    known = [run.metrics.per_class[label] for run in runs if run.metrics and label in run.metrics.per_class]
    scores = [float(values["f1"]) for values in known if "f1" in values]
    return fmean(scores) if scores else None


def _finding(scenarios: dict[str, list[RunResult]], rows: Sequence[ClassRow]) -> str:
    """The class that loses most between the shallowest and the deepest static scenario from the bottom."""
    depths = [
        (depth, place)
        for place, (name, runs) in enumerate(scenarios.items())
        if name.startswith(("bottom-up", "nothing")) and (depth := static_depth(runs[0])) is not None
    ]
    if len(depths) < 2:
        return ""
    (shallow, first), (deep, last) = min(depths), max(depths)
    known = [
        (before - after, before, after, row)
        for row in rows
        if (before := row.scores[first]) is not None and (after := row.scores[last]) is not None
    ]
    if not known or shallow == deep:
        return ""
    loss, before, after, row = max(known, key=lambda item: item[0])
    if loss <= 0:
        return f"No class loses between {shallow} and {deep} frozen blocks."
    return (
        f"A deeper freeze costs the class {row.label} most: {100 * before:.1f} with {shallow} frozen blocks, "
        f"{100 * after:.1f} with {deep}."
    )
