"""Reads what comparisons and searches stored in their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..comparison.folder import StudyFolder
from ..comparison.result import FailedRun, RunResult
from ..errors import RequestError
from .checks import ENVIRONMENT
from .row import Row, Spread
from .summary import SearchDetails, Summary, summarize_runs

if TYPE_CHECKING:
    from ..search import DepthSearch, Outcome


def load_runs(folders: Sequence[str | Path]) -> tuple[Summary, ...]:
    """Summarize the runs of one or more folders, one summary per study.

    Folders with the same data set, model, settings and environment are one study, unless they hold the same scenario
    and seed.

    Args:
        folders: Folders written by `adaptivefreeze compare`. A folder given twice counts once.

    Raises:
        RequestError: If a folder holds no runs, or a file cannot be read.
    """
    studies: list[_Study] = []
    for path in dict.fromkeys(Path(folder).resolve() for folder in folders):
        folder = StudyFolder(path)
        runs = folder.runs()
        missing = folder.missing(runs)
        if not runs and not missing:
            raise RequestError(f"{path} holds no runs: give the --output folder of `adaptivefreeze compare`.")
        if not runs:
            raise RequestError(f"{path} holds no finished run yet: {len(missing)} runs are planned.")
        study = _Study(path.name, runs, _traits(runs[0]), missing, _search_is_open(path))
        same = next((other for other in studies if other.takes(study)), None)
        if same is None:
            studies.append(study)
        else:
            same.name += f", {study.name}"
            same.runs += study.runs
            same.missing += study.missing
    return tuple(replace(summarize_runs(study.runs, study.unfinished), name=study.name) for study in studies)


@dataclass
class _Study:
    """The runs of one or several folders that share a table."""

    name: str
    runs: list[RunResult | FailedRun]
    traits: dict[str, object]
    missing: list[tuple[str, int]]
    open_search: bool

    def takes(self, other: _Study) -> bool:
        mine = {(run.scenario, run.seed) for run in self.runs}
        return self.traits == other.traits and mine.isdisjoint((run.scenario, run.seed) for run in other.runs)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Sentences about what is missing."""
        found = []
        done = {(run.scenario, run.seed) for run in self.runs}
        if missing := [pair for pair in self.missing if pair not in done]:
            names = ", ".join(f"{scenario} (seed {seed})" for scenario, seed in missing[:10])
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            found.append(
                f"This study is unfinished: {len(missing)} of {len(missing) + len(done)} runs are missing: "
                f"{names}{more}. The same command continues it."
            )
        if self.open_search:
            found.append(
                "This search is unfinished: no depth has been chosen, and the test split has not been used. The same "
                "command continues it."
            )
        return tuple(found)


def _search_is_open(folder: Path) -> bool:
    return (folder / "study.db").exists() and not (folder / "search.json").exists()


def _traits(run: RunResult | FailedRun) -> dict[str, object]:
    """What the runs of one table have in common, by name."""
    environment = {key: run.environment.get(key) for key in ENVIRONMENT}
    return {
        "data set": run.task.fingerprint,
        "model": run.model.fingerprint,
        **({} if isinstance(run, FailedRun) else environment),
        **{key.replace("_", " "): value for key, value in sorted(run.settings.items())},
    }


def load_search(folder: str | Path) -> Summary | None:
    """Summarize the search stored in `folder`. Return None if there is none.

    Raises:
        RequestError: If the file cannot be read.
    """
    path = Path(folder) / "search.json"
    if not path.is_file():
        return None
    from ..search import DepthSearch

    try:
        return summarize_search(DepthSearch.from_json(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not a search result that this version can read ({error}).") from error


def summarize_search(search: DepthSearch) -> Summary:
    """Summarize the result of a search: the candidates, then the baselines."""
    rows = {outcome.name: _row(search, outcome) for outcome in (*search.outcomes, *search.baselines)}
    return Summary(
        title=f"How deep to freeze: {search.title}",
        subject=search.title,
        answer=search.conclusion[0] if search.conclusion else "",
        rows=tuple(rows.values()),
        findings=search.conclusion[1:],
        failures=tuple(f"{outcome.name}. {outcome.error}" for outcome in search.failures),
        search=SearchDetails(
            metric=search.metric,
            replicates=search.replicates,
            tolerance=search.tolerance,
            best=rows[search.best.name],
            fast=rows[search.fast.name],
            study=search.study,
            storage=search.storage,
            greater_is_better=search.greater_is_better,
        ),
    )


def _row(search: DepthSearch, outcome: Outcome) -> Row:
    notes = {
        "k*": outcome.name == search.best.name,
        "k_fast": outcome.name == search.fast.name,
        "pruned": outcome.pruned,
        "failed": outcome.error is not None,
        "on the Pareto front": outcome.on_front and outcome.role == "sample",
    }
    estimate = outcome.estimate
    return Row(
        scenario=outcome.scenario,
        role=outcome.role,
        notes=tuple(note for note, holds in notes.items() if holds),
        highlighted=outcome.name in (search.best.name, search.fast.name),
        depth=outcome.depth,
        learning_rate=outcome.learning_rate,
        scores=outcome.scores,
        validation_score=Spread(estimate.mean, estimate.sd) if estimate else None,
        interval_low=estimate.low if estimate else None,
        interval_high=estimate.high if estimate else None,
        probability_best=estimate.best if estimate else None,
        test_score=Spread.of([outcome.test.get(search.metric)]),
        train_seconds=Spread.of([outcome.seconds]),
        speedup=Spread.of([outcome.speedup]),
        peak_memory_bytes=Spread.of([outcome.memory]),
    )
