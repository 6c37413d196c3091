"""The end of a search: the chosen candidates on the test split, the answer, and what is left in the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from optuna.storages import BaseStorage
from optuna.trial import Trial, TrialState

from ..comparison.result import write_json
from .objective import Bench, Candidate, TaskBench, TrialFailed
from .result import DepthSearch, Outcome, choose
from .storage import public
from .study import open_study
from .trials import ERROR, UNITS, Order, Queue, candidate_of
from .units import Unit, counted
from .words import conclude
from .worker import Worker

CHOSEN = "chosen"
ANSWER = "search.json"

Scores = Mapping[Candidate, Mapping[str, float]]


def score_on_test(
    bench: Bench, storage: BaseStorage, name: str, units: Sequence[Unit], chosen: Sequence[Candidate]
) -> Scores:
    """Candidate -> mean test scores. Each chosen candidate is scored once: by a study of its own in the same storage,
    so that of several workers one does it and the others read. A candidate that cannot be scored is left out."""
    if not bench.has_test:
        return {}
    study = open_study(storage, name, bench.identity(), metrics=("test score",))

    def score(trial: Trial) -> float:
        try:
            found = [bench.test(candidate_of(trial), Unit.named(name)) for name in trial.user_attrs[UNITS]]
        except TrialFailed as error:
            trial.set_user_attr(ERROR, str(error))
            raise
        means = {metric: fmean(scores[metric] for scores in found) for metric in found[0]}
        trial.set_user_attr("scores", means)
        return next(iter(means.values()))

    queue = Queue(study, lambda trials: [Order(candidate, units, CHOSEN) for candidate in chosen])
    queue.prepare()
    queue.work(score)
    wanted = {Order(candidate, units, CHOSEN).key: candidate for candidate in chosen}
    scored = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    keys = {Order(candidate_of(t), units, CHOSEN).key: t for t in scored if t.user_attrs[UNITS] == [*map(str, units)]}
    return {candidate: keys[key].user_attrs["scores"] for key, candidate in wanted.items() if key in keys}


def answer(bench: Bench, worker: Worker, tests: Scores, title: str, folder: Path | None) -> DepthSearch:
    """What the trials say."""
    options, units = worker.options, worker.units
    searched, beside = worker.outcomes()
    searched = [
        replace(outcome, test=tests.get(Candidate(outcome.scenario, outcome.learning_rate), {})) for outcome in searched
    ]
    best, fast = choose(searched, options.tolerance)
    words = conclude(searched, best, fast, counted=counted(units), tolerance=options.tolerance, units=len(units))
    untried = None if options.trials else worker.plan.conclusion(worker.tried())
    return DepthSearch(
        title=title,
        metric=options.metric,
        units=tuple(map(str, units)),
        tolerance=options.tolerance,
        outcomes=tuple(searched),
        baselines=tuple(beside),
        best=best,
        fast=fast,
        words=(*words, *([untried] if untried else []), *_against(best, fast, beside)),
        study=worker.study.study_name,
        storage=public(options.storage)
        if options.storage
        else f"sqlite:///{folder / 'study.db'}"
        if folder
        else "memory",
        folder=folder,
        ran=worker.queue.ran,
    )


def leave(bench: TaskBench, worker: Worker, chosen: Sequence[Candidate], folder: Path, found: DepthSearch) -> None:
    """Write the answer, keep the models of the chosen candidates, delete all others and the rows."""
    for outcome in found.outcomes:
        candidate = Candidate(outcome.scenario, outcome.learning_rate)
        if candidate not in chosen:
            bench.give_up(candidate, worker.units)
    bench.drop_rows()
    value = json.loads(json.dumps(found.to_json()))
    path = folder / ANSWER
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != value:
        write_json(path, value)


def _against(best: Outcome, fast: Outcome, beside: Sequence[Outcome]) -> list[str]:
    """How the best of the baselines that are no depths of the search compares."""
    known = [outcome for outcome in beside if outcome.certainty is not None]
    if not known:
        return []
    rival = max(known, key=lambda outcome: outcome.mean)
    by = 100 * (best.mean - rival.mean)
    speed = f", {rival.speedup:.1f}× full fine-tuning's speed" if rival.speedup else ""
    verb = "above" if by >= 0 else "below"
    return [
        f"The best baseline beside them is {rival.name} ({100 * rival.mean:.2f}{speed}): k* lies {abs(by):.2f} {verb}."
    ]
