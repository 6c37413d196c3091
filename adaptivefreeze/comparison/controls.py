"""The control of scenarios that save time: full fine-tuning with a shorter schedule that takes as long."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..policies import ShortFull
from .result import RunResult


def short_controls(runs: Sequence[RunResult]) -> tuple[ShortFull, ...]:
    """Return a `ShortFull` for each tenth of full fine-tuning's training time that a scenario takes, longest first.

    The time of a scenario is compared seed by seed and averaged. Scenarios that round to the whole time, or to none of
    it, need no control.

    Args:
        runs: The finished runs of a study.
    """
    full: dict[int, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for run in runs:
        if run.full_fine_tuning:
            full.setdefault(run.seed, []).append(run.train_seconds)
    for run in runs:
        is_control = run.scenario.partition(":")[0] == ShortFull.name
        if run.seed in full and not run.full_fine_tuning and not is_control:
            shares.setdefault(run.scenario, []).append(run.train_seconds / fmean(full[run.seed]))
    tenths = {round(10 * fmean(found)) for found in shares.values()}
    return tuple(ShortFull(tenth / 10) for tenth in sorted(tenths, reverse=True) if 0 < tenth < 10)
