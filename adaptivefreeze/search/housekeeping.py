"""Housekeeping: as a search goes on, models that can no longer be chosen and rows that nothing starts from go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..comparison.scenarios import UNFROZEN
from .objective import Candidate, TaskBench
from .plan import Exhaustive, Plan
from .result import Outcome
from .units import Unit


class Housekeeping:
    """What one worker clears away after each of its trials; the trials of `plan` go from shallow to deep."""

    def __init__(self, bench: TaskBench, plan: Plan, tolerance: float) -> None:
        self._bench, self._plan, self._tolerance = bench, plan, tolerance
        self._rows: dict[int, set[Path]] = {}  # depth -> the files that its trial has added
        self._seen = bench.rows()

    def tidy(self, outcomes: Sequence[Outcome], units: Sequence[Unit], *, exhaustive: bool) -> None:
        """Clear away, given all outcomes so far; rows only in an `exhaustive` search, which comes back to none."""
        known = [outcome for outcome in outcomes if outcome.certainty is not None]
        best = max((outcome.mean for outcome in known if not outcome.pruned), default=0.0)
        for outcome in known:
            # The best only ever rises: who is out of reach now stays so. Full fine-tuning is always compared with.
            lost = outcome.pruned or outcome.mean < best - self._tolerance
            if lost and outcome.scenario not in UNFROZEN:
                self._bench.give_up(Candidate(outcome.scenario, outcome.learning_rate), units)
        if exhaustive and isinstance(self._plan, Exhaustive):
            self._drop_rows({outcome.depth for outcome in known if outcome.depth is not None})

    def _drop_rows(self, done: set[int]) -> None:
        now = self._bench.rows()
        deepest = max(done, default=0)
        self._rows.setdefault(deepest, set()).update(now - self._seen)
        self._seen = now
        unfinished = set(self._plan.wanted({})) - done
        for depth in [depth for depth in self._rows if depth < deepest]:
            if not any(depth <= other < deepest for other in unfinished):
                for path in self._rows.pop(depth):
                    path.unlink(missing_ok=True)
