"""Progress output of a comparison or a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comparison.compare import ProgressListener
from ..comparison.result import FailedRun, RunResult
from .table import score_name

if TYPE_CHECKING:
    from rich.console import Console

    from ..data import Task


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
        description = f"run {self._number} of {self._total}: {scenario}, seed {seed}"
        self._bar.update(self._task, description=description, completed=0)

    def stepped(self, done: int, total: int, remaining: float | None) -> None:
        self._bar.update(self._task, completed=done, total=total, left=_left(remaining))

    def run_ended(self, run: RunResult | FailedRun) -> None:
        # A quick search adds runs as it goes on, and one of several processes does not know the total.
        number = f"[{self._number}/{self._total}]" if self._number <= self._total else f"[{self._number}]"
        if isinstance(run, FailedRun):
            self._print(f"{number} {run.scenario}, seed {run.seed}, failed. {run.error}")
        else:
            # The trials of a search are not scored on the test split.
            split, scored = ("", run.metrics) if run.metrics else ("validation ", run.validation[-1])
            self._print(
                f"{number} {run.scenario}, seed {run.seed}: {run.train_seconds:.1f} s of training, "
                f"{split}{score_name(self._score)} {getattr(scored, self._score):.4f}"
            )

    def _print(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _left(seconds: float | None) -> str:
    """Remaining time of all runs: `about 3 min left`."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"
