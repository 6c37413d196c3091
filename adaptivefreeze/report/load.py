"""Reads what comparisons and searches stored in their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..comparison.folder import StudyFolder
from ..comparison.result import FailedRun, RunResult
from ..errors import RequestError
from .summary import Row, SearchDetails, Spread, Summary, summarize_runs

if TYPE_CHECKING:
    from ..search import DepthSearch, Outcome


def load_runs(folders: Sequence[str | Path]) -> Summary:
    """Summarize the runs of one or more folders together.

    Args:
        folders: Folders written by `adaptivefreeze compare`. A folder given twice counts once.

    Raises:
        RequestError: If a folder holds no runs, if runs differ in data set, model or settings, or if two folders
            hold the same scenario and seed.
    """
    found: dict[tuple[str, int], Path] = {}
    runs: list[RunResult | FailedRun] = []
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        stored = StudyFolder(folder).runs()
        if not stored:
            raise RequestError(f"{folder} holds no runs: give the --output folder of `adaptivefreeze compare`.")
        for run in stored:
            key = (run.scenario, run.seed)
            if key in found:
                raise RequestError(
                    f"{run.scenario} with seed {run.seed} is in both {found[key]} and {folder}: give only one of them."
                )
            found[key] = folder
            if runs:
                _check_comparable(runs[0], found[(runs[0].scenario, runs[0].seed)], run, folder)
            runs.append(run)
    return summarize_runs(runs)


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
        rows=tuple(rows.values()),
        findings=search.conclusion,
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


def _check_comparable(one: RunResult | FailedRun, there: Path, other: RunResult | FailedRun, here: Path) -> None:
    """Raise `RequestError` if two runs differ in data set, model or settings."""
    first, second = _traits(one), _traits(other)
    for trait in dict.fromkeys((*first, *second)):
        (mine, shown), (theirs, also_shown) = first.get(trait, (None, None)), second.get(trait, (None, None))
        if mine != theirs:
            raise RequestError(
                f"{there} and {here} cannot share a table: {trait} is {shown} in the first and {also_shown} in the "
                "second."
            )


def _traits(run: RunResult | FailedRun) -> dict[str, tuple[object, object]]:
    """What the runs of one table have in common: name -> (value to compare, value to show)."""
    task, model = run.task, run.model
    return {
        "the data set": (task.fingerprint, f"{task.dataset} ({task.fingerprint})"),
        "the model": (model.fingerprint, f"{model.name} ({model.fingerprint})"),
        **{key.replace("_", " "): (value, value) for key, value in sorted(run.settings.items())},
    }
