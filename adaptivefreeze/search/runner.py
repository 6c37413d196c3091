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
from ..comparison.interrupt import reliable_interrupts
from ..comparison.records import task_record
from ..comparison.result import write_json
from ..comparison.settings import StudySettings
from .conclusion import conclude
from .objective import Objective, TaskObjective
from .result import DepthSearch, Outcome, choose
from .space import SearchOptions
from .storage import check_study, open_storage, open_study, public_url, quiet_optuna
from .trials import REPLICATES, Candidate, PlannedTrial, Replicate, TrialQueue, work_key
from .worker import Worker, run_workers

if TYPE_CHECKING:
    from ..data import Task

ProgressContext = Callable[[], AbstractContextManager[ProgressListener]] | None
TestScores = Mapping[Candidate, Mapping[str, float]]


def search(
    task: Task,
    options: SearchOptions | None = None,
    *,
    settings: StudySettings | None = None,
    output: str | Path,
    progress: ProgressListener | None = None,
    load: Callable[[], Task] | None = None,
    worker_progress: ProgressContext = None,
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
    objective = TaskObjective(task, settings, output, options, progress)
    options = options.resolved(objective.depth)
    name = options.study_name or f"{Path(task.dataset).name}, {Path(task.model).name}"
    storage: BaseStorage | None = None
    if options.storage is not None:
        storage = open_storage(options.storage, output)
        check_study(storage, name, objective.identity(options))
    StudyFolder(output).claim(task_record(task), objective.model, settings)
    storage = storage or open_storage(None, output)
    process = None
    if options.workers > 1 and load is not None:
        process = partial(_run_process, load, options, settings, output, name, worker_progress)
    return conduct(objective, storage, name, options, process=process, folder=output)


@quiet_optuna()
def _run_process(
    load: Callable[[], Task],
    options: SearchOptions,
    settings: StudySettings,
    output: Path,
    name: str,
    progress: ProgressContext,
) -> None:
    """Do the work of a further process of the same search."""
    with nullcontext(ProgressListener()) if progress is None else progress() as listener:
        objective = TaskObjective(load(), settings, output, options, listener)
        Worker(objective, open_storage(options.storage, output), name, options).work()


@quiet_optuna()
def conduct(
    objective: Objective,
    storage: BaseStorage,
    name: str,
    options: SearchOptions,
    *,
    process: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> DepthSearch:
    """Run a search on any objective, also in further processes that do `process`; write the result to `folder`."""
    worker = Worker(objective, storage, name, options)
    planned, done = worker.queue.prepare()
    trainings = len(worker.replicates)
    objective.report_start(max(planned, options.trials or 0) * trainings, done * trainings, worker.queue.left())
    try:
        with reliable_interrupts():
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
    for candidate in map(worker.candidate, found.outcomes):
        if candidate not in chosen:
            objective.discard(candidate, worker.replicates)
    objective.drop_rows()
    if folder is not None:
        path, value = folder / "search.json", json.loads(json.dumps(found.to_json()))
        if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != value:
            write_json(path, value)
    return found


def score_on_test(worker: Worker, storage: BaseStorage, name: str, chosen: Sequence[Candidate]) -> TestScores:
    """Return the mean test scores of the chosen candidates, without those that cannot be scored.

    They are trials of a second study in the same storage, so that only one of several workers scores a candidate.
    """
    objective, options = worker.objective, worker.options
    if not objective.has_test:
        return {}
    study = open_study(
        storage, name, {**objective.identity(options), "search": {}}, {"test score": StudyDirection.MAXIMIZE}
    )

    begun = 0

    def score(trial: Trial) -> float:
        nonlocal begun
        candidate = worker.candidate(trial)
        objective.report_scoring(candidate, begun, len(chosen))
        begun += 1
        found = [objective.test(candidate, Replicate.parse(text)) for text in trial.user_attrs[REPLICATES]]
        means = {metric: fmean(scores[metric] for scores in found) for metric in found[0]}
        trial.set_user_attr("scores", means)
        return next(iter(means.values()))

    planned = [PlannedTrial(candidate, worker.replicates, "chosen") for candidate in chosen]
    queue = TrialQueue(study, lambda: planned)
    queue.prepare()
    queue.work(score)
    scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    scores = {work_key(trial.user_attrs): trial.user_attrs["scores"] for trial in scored}
    keys = {item.candidate: work_key(item.attributes) for item in planned}
    return {candidate: scores[key] for candidate, key in keys.items() if key in scores}


def conclude_search(worker: Worker, tests: TestScores, folder: Path | None) -> DepthSearch:
    """Return the result that follows from the trials."""
    options = worker.options

    def reported(outcome: Outcome) -> Outcome:
        return outcome if options.greater_is_better else outcome.negated()

    searched, baselines = worker.outcomes()
    searched = [replace(outcome, test=tests.get(worker.candidate(outcome), {})) for outcome in searched]
    best, fast = map(reported, choose(searched, options.tolerance))
    place = f"sqlite:///{folder / 'study.db'}" if folder else "memory"
    found = DepthSearch(
        title=worker.objective.title,
        metric=options.metric,
        replicates=tuple(map(str, worker.replicates)),
        tolerance=options.tolerance,
        outcomes=tuple(map(reported, searched)),
        baselines=tuple(map(reported, baselines)),
        best=best,
        fast=fast,
        conclusion=(),
        study=worker.study.study_name,
        storage=public_url(options.storage) if options.storage else place,
        greater_is_better=options.greater_is_better,
        folder=folder,
        ran=worker.queue.ran,
        guessing=worker.objective.guessing(options.metric),
    )
    untried = None if options.trials else worker.plan.untried(worker.tried())
    return replace(found, conclusion=conclude(found, untried))
