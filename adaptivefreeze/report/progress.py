"""Progress output of a comparison or a search."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..comparison.compare import ProgressListener
from ..comparison.result import FailedRun, RunResult
from .table import score_name

if TYPE_CHECKING:
    from rich.console import Console

    from ..data import Task

_LONG_EVALUATION = 20.0
"""Seconds of evaluation in a run from which an advice to limit it is given."""


class ProgressBar(ProgressListener):
    """Shows a progress bar on a terminal, and prints one line per finished run on any console.

    Args:
        console: Where to write. None stands for standard error.
        score: Metric that the line of a run shows.
        bar: Whether to show the bar. Processes that share a terminal must not.

    Example:
        >>> with ProgressBar() as progress:
        ...     compare(task, progress=progress, ...)
    """

    def __init__(self, console: Console | None = None, *, score: str = "macro_f1", bar: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("loading", total=1, left="")
        self._shown = bar and self._console.is_terminal
        self._score = score
        self._total = self._number = 0
        self._left = ""
        self._advised = False
        self._scoring_began = 0.0

    def __enter__(self) -> ProgressBar:
        if self._shown:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._bar.stop()

    def study_begins(self, task: Task, runs: int, stored: int) -> None:
        self._total, self._number = runs, stored
        for warning in task.warnings:
            self._print(f"Warning: {warning}")
        if stored:
            self._print(f"{stored} of {runs} runs are already stored.")

    def warming_up(self) -> None:
        self._bar.update(self._task, description="warming up", completed=0, total=1, left="")

    def run_begins(self, scenario: str, seed: int) -> None:
        self._number += 1
        description = f"{_number(self._number, self._total)} {scenario}, seed {seed}"
        self._bar.update(self._task, description=description, completed=0)
        if not self._console.is_terminal:
            self._print(f"{_number(self._number, self._total)} {scenario}, seed {seed}, begins.{self._left}")

    def scoring(self, scenario: str, done: int, total: int) -> None:
        now = time.monotonic()
        self._scoring_began = self._scoring_began if done else now
        left = (now - self._scoring_began) / done * (total - done) if done else None
        text = f"test split, {done + 1} of {total}: {scenario}"
        self._bar.update(self._task, description=text, completed=done, total=total, left=_left(left))
        if not self._console.is_terminal:
            self._print(f"{text}{f', {_left(left)}' if left is not None else ''}")

    def stepped(self, done: int, total: int, remaining: float | None) -> None:
        self._left = f" {_left(remaining).capitalize()}." if remaining is not None else ""
        self._bar.update(self._task, completed=done, total=total, left=_left(remaining))

    def run_ended(self, run: RunResult | FailedRun) -> None:
        number = _number(self._number, self._total)
        if isinstance(run, FailedRun):
            self._print(f"{number} {run.scenario}, seed {run.seed}, failed. {run.error}")
        else:
            # The trials of a search are not scored on the test split.
            split, scored = ("", run.metrics) if run.metrics else ("validation ", run.validation[-1])
            score = getattr(scored, self._score, None)
            text = "not measured" if score is None else f"{score:.4f}"
            self._print(
                f"{number} {run.scenario}, seed {run.seed}: {run.train_seconds:.1f} s of training, "
                f"{split}{score_name(self._score)} {text}"
            )
            self._advise(run)

    def _advise(self, run: RunResult) -> None:
        """Say once that evaluation takes most of the time, if both are measured by the same clock."""
        same_clock = run.settings.get("clock", "wall") == "wall"
        if not self._advised and same_clock and run.eval_seconds > max(run.train_seconds, _LONG_EVALUATION):
            self._advised = True
            self._print(
                f"Evaluation took {run.eval_seconds:.0f} s, training {run.train_seconds:.0f} s: --eval-limit "
                f"{run.task.train_examples} evaluates on fewer examples."
            )

    def _print(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _number(number: int, total: int) -> str:
    """`[2/8]`; `[2]` where runs are added later, or one of several processes does not know the total."""
    return f"[{number}/{total}]" if number <= total else f"[{number}]"


def _left(seconds: float | None) -> str:
    """Remaining time of all runs: `about 3 min left`."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"
