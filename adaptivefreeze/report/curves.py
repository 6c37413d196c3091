"""The second plot of a study: validation macro F1 as training goes on, a line a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """One run: `points` are (training seconds, macro F1 on the validation split)."""

    scenario: str
    seed: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ValidationCurves:
    """The lines of all runs with at least two evaluations."""

    title: str
    lines: tuple[Line, ...]


def validation_curves(summary: Summary) -> ValidationCurves:
    """What the plot shows."""
    lines = tuple(
        Line(run.scenario, run.seed, tuple((point.seconds, point.macro_f1) for point in run.validation))
        for run in summary.results
        if len(run.validation) > 1
    )
    return ValidationCurves(f"data set {summary.task.dataset}, model {summary.model.name}", lines)


def draw(info: ValidationCurves) -> Figure:
    """`info` as a figure that belongs to no window; seeds of one scenario share its colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    scenarios = list(dict.fromkeys(line.scenario for line in info.lines))
    for line in info.lines:
        index = scenarios.index(line.scenario)
        first = next(other for other in info.lines if other.scenario == line.scenario) is line
        axes.plot(
            *zip(*line.points, strict=True),
            color=f"C{index % 10}",
            linestyle=("-", "--", ":")[index // 10 % 3],
            marker=".",
            label=line.scenario if first else None,
        )
    axes.set(xlabel="training time (s)", ylabel="macro F1 on the validation split", title=info.title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
