"""search: prepare the study, run the trials, score the chosen candidates on the test split, and conclude."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from ..comparison.compare import Interrupted, ProgressListener, check_seeds
from ..comparison.folder import StudyFolder
from ..comparison.records import task_record
from ..comparison.result import write_json
from ..comparison.scenarios import expand
from ..comparison.settings import StudySettings
from .objective import Candidate, Objective, Replicate, TaskObjective, TrialFailed
from .options import SearchOptions
from .result import DepthSearch, Outcome, choose, compare_with_baselines, conclude
from .space import sampled_policies
from .storage import check_study, open_storage, open_study, public_url
from .trials import CHOSEN, ERROR, REPLICATES, PlannedTrial, TrialQueue, work_key
from .worker import Worker, pruner_of, run_workers, sampler_of

if TYPE_CHECKING:
    from ..data import Task

RESULT_FILE = "search.json"

ProgressContext = Callable[[], AbstractContextManager[ProgressListener]]
TestScores = Mapping[Candidate, Mapping[str, float]]


def no_progress() -> AbstractContextManager[ProgressListener]:
    """No progress output."""
    return nullcontext(ProgressListener())


def search(
    task: Task,
    options: SearchOptions | None = None,
    *,
    settings: StudySettings | None = None,
    output: str | Path,
    progress: ProgressListener | None = None,
    load: Callable[[], Task] | None = None,
    worker_progress: ProgressContext = no_progress,
) -> DepthSearch:
    """Search how deep the model of `task` can be frozen.

    The trials are those of an Optuna study, and every training is stored under `output`. The same call resumes an
    interrupted search, and joins other processes that use the same storage.

    Args:
        task: The task.
        options: What is searched.
        settings: Settings of every training; with a prefix cache, all trials share it.
        output: The output folder.
        progress: Receives the progress of this process.
        load: Loads the task in a further process; must be picklable. Needed for `options.workers` above 1.
        worker_progress: Returns a context with the listener of a further process; must be picklable.

    Raises:
        RequestError: If the request is wrong. Study and folder are not changed.
        Interrupted: On Ctrl-C.
        StudyFailed: If no training ended.

    Example:
        >>> found = search(task, SearchOptions(seeds=(0, 1, 2)), output="runs/search")  # doctest: +SKIP
        >>> found.best.depth, found.fast.depth  # doctest: +SKIP
    """
    options, progress = options or SearchOptions(), progress or ProgressListener()
    settings, output = settings or StudySettings(cache=True), Path(output)
    check_seeds(options.seeds)
    settings.arguments("unused", seed=0)
    objective = TaskObjective(task, settings, output, metric=options.metric, folds=options.folds, progress=progress)
    objective.check_metric(greater_is_better=options.greater_is_better)
    options.depths_of(objective.depth)
    given = options.compared_with
    options = replace(options, baselines=expand(given, objective.depth) if given else ())
    name = options.study_name or f"{Path(task.dataset).name}, {Path(task.model).name}"
    storage: BaseStorage | None = None
    if options.storage is not None:
        storage = open_storage(options.storage, output)
        check_study(storage, name, identity_of(objective, options))
    StudyFolder(output).claim(task_record(task), objective.model, settings)
    storage = storage or open_storage(None, output)
    process = None
    if options.workers > 1 and load is not None:
        process = partial(run_process, load, options, settings, output, name, worker_progress)
    return conduct(objective, storage, name, options, rate=settings.learning_rate, process=process, folder=output)


def run_process(
    load: Callable[[], Task],
    options: SearchOptions,
    settings: StudySettings,
    output: Path,
    name: str,
    progress: ProgressContext,
) -> None:
    """Do the work of a further process of the same search."""
    with progress() as listener:
        objective = TaskObjective(
            load(), settings, output, metric=options.metric, folds=options.folds, progress=listener
        )
        make_worker(objective, open_storage(options.storage, output), name, options, settings.learning_rate).work()


def identity_of(objective: Objective, options: SearchOptions) -> dict[str, object]:
    """Return what two searches must have in common to share a study."""
    sampled = {"policies": list(sampled_policies())} if options.trials else {}
    return {**objective.identity(), "search": {**options.shared(), **sampled}}


def make_worker(objective: Objective, storage: BaseStorage, name: str, options: SearchOptions, rate: float) -> Worker:
    """Open the study, created if there is none, and return a worker for it. Raises `RequestError` as `open_study`."""
    maximize, minimize = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = {options.metric: maximize if options.greater_is_better else minimize}
    if options.pareto:
        directions["train seconds"] = minimize
    study = open_study(
        storage,
        name,
        identity_of(objective, options),
        directions,
        sampler=sampler_of(options),
        pruner=pruner_of(options),
    )
    return Worker(study, objective, options, rate)


def conduct(
    objective: Objective,
    storage: BaseStorage,
    name: str,
    options: SearchOptions,
    *,
    rate: float,
    process: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> DepthSearch:
    """Run a search on any objective, with the result written to `folder`, if any; see `search`.

    `rate` is the learning rate that samples vary, `process` what each further process does.
    """
    worker = make_worker(objective, storage, name, options, rate)
    planned, done = worker.queue.prepare()
    trainings = len(worker.replicates)
    objective.report_start(max(planned, options.trials or 0) * trainings, done * trainings)
    try:
        if process is not None:
            run_workers(process, options.workers)
        worker.work()
        chosen = worker.chosen()
        tests = score_on_test(worker, storage, f"{name} (test split)", chosen)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Interrupted: finished trainings are kept in {folder or name}; the same command resumes the search."
        ) from error
    found = conclude_search(worker, tests, folder)
    for outcome in found.outcomes:
        candidate = worker.candidate(outcome)
        if candidate not in chosen:
            objective.discard(candidate, worker.replicates)
    objective.drop_rows()
    if folder is not None:
        path, value = folder / RESULT_FILE, json.loads(json.dumps(found.to_json()))
        if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != value:
            write_json(path, value)
    return found


def score_on_test(worker: Worker, storage: BaseStorage, name: str, chosen: Sequence[Candidate]) -> TestScores:
    """Return the mean test scores of each chosen candidate; one that cannot be scored is left out.

    A second study in the same storage makes sure that, of several workers, one scores a candidate and the others read
    its scores.
    """
    objective, replicates = worker.objective, worker.replicates
    if not objective.has_test:
        return {}
    study = open_study(storage, name, {**objective.identity(), "search": {}}, {"test score": StudyDirection.MAXIMIZE})

    def score(trial: Trial) -> float:
        candidate = worker.candidate(trial)
        try:
            found = [objective.test(candidate, Replicate.parse(text)) for text in trial.user_attrs[REPLICATES]]
        except TrialFailed as error:
            trial.set_user_attr(ERROR, str(error))
            raise
        means = {metric: fmean(scores[metric] for scores in found) for metric in found[0]}
        trial.set_user_attr("scores", means)
        return next(iter(means.values()))

    planned = {candidate: PlannedTrial(candidate, replicates, CHOSEN) for candidate in chosen}
    queue = TrialQueue(study, lambda: list(planned.values()))
    queue.prepare()
    queue.work(score)
    scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    scores = {work_key(trial.user_attrs): trial.user_attrs["scores"] for trial in scored}
    return {candidate: scores[item.key] for candidate, item in planned.items() if item.key in scores}


def conclude_search(worker: Worker, tests: TestScores, folder: Path | None) -> DepthSearch:
    """Return the result that follows from the trials."""
    options, greater = worker.options, worker.options.greater_is_better

    def reported(outcome: Outcome) -> Outcome:
        return outcome if greater else outcome.negated()

    searched, baselines = worker.outcomes()
    searched = [replace(outcome, test=tests.get(worker.candidate(outcome), {})) for outcome in searched]
    best, fast = map(reported, choose(searched, options.tolerance))
    outcomes, beside = [*map(reported, searched)], [*map(reported, baselines)]
    sentences = conclude(
        outcomes,
        best,
        fast,
        counted=counted(worker.replicates),
        tolerance=options.tolerance,
        replicates=len(worker.replicates),
        greater_is_better=greater,
    )
    untried = None if options.trials else worker.plan.untried(worker.tried())
    against = compare_with_baselines(best, beside, greater_is_better=greater)
    place = f"sqlite:///{folder / 'study.db'}" if folder else "memory"
    return DepthSearch(
        title=worker.objective.title,
        metric=options.metric,
        replicates=tuple(map(str, worker.replicates)),
        tolerance=options.tolerance,
        outcomes=tuple(outcomes),
        baselines=tuple(beside),
        best=best,
        fast=fast,
        conclusion=(*sentences, *([untried] if untried else []), *against),
        study=worker.study.study_name,
        storage=public_url(options.storage) if options.storage else place,
        greater_is_better=greater,
        folder=folder,
        ran=worker.queue.ran,
    )


def counted(replicates: Sequence[Replicate]) -> str:
    """Return the replicates in words: `3 seeds`, `5 folds`, `2 seeds × 5 folds`."""
    seeds, folds = len({r.seed for r in replicates}), len({r.fold for r in replicates} - {None})
    parts = [(seeds, "seed")] if seeds > 1 or not folds else []
    parts += [(folds, "fold")] if folds else []
    return " × ".join(f"{count} {noun}" if count == 1 else f"{count} {noun}s" for count, noun in parts)
