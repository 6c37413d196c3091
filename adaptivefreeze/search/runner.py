"""search: the whole of it. Prepare the study, work (alone or with others), answer, look at the test split once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage

from ..comparison.compare import Interrupted, ProgressListener, check_seeds
from ..comparison.folder import StudyFolder
from ..comparison.records import task_record
from ..comparison.settings import StudySettings
from .finish import answer, leave, score_on_test
from .objective import Bench, TaskBench
from .options import SearchOptions
from .processes import run_workers
from .result import DepthSearch
from .storage import open_storage
from .study import check_study, open_study
from .worker import Worker, pruner_of, sampler_of

if TYPE_CHECKING:
    from ..data import Task

ProgressContext = Callable[[], AbstractContextManager[ProgressListener]]


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
    """How deep `task`'s model may be frozen: the trials of an Optuna study, each a RunResult under `output`, and what
    they say. The same call goes on where an earlier one ended, and joins others that use the same storage.

    `settings` are those of every training; a prefix cache in them is shared by all trials. With `options.workers`
    above 1 that many processes are started; each calls `load`, which must be picklable, for its own task, and reports
    to the progress of a context that `worker_progress` makes.

    Raises `RequestError` for a wrong request, with study and folder untouched, `Interrupted` on Ctrl-C, and
    `StudyFailed` when no training ended.
    """
    options, progress = options or SearchOptions(), progress or ProgressListener()
    settings, output = settings or StudySettings(cache=True), Path(output)
    check_seeds(options.seeds)
    settings.arguments("unused", seed=0)
    bench = TaskBench(task, settings, output, metric=options.metric, folds=options.folds, progress=progress)
    bench.check_metric()
    options.depths_of(bench.depth)
    name = options.study or f"{Path(task.dataset).name}, {Path(task.model).name}"
    storage: BaseStorage | None = None
    if options.storage is not None:
        storage = open_storage(options.storage, output)
        check_study(storage, name, {**bench.identity(), "search": options.shared()})
    StudyFolder(output).claim(task_record(task), bench.model, settings)
    storage = storage or open_storage(None, output)
    helpers = None
    if options.workers > 1 and load is not None:
        helpers = Helpers(load, options, settings, output, name, worker_progress)
    return conduct(bench, storage, name, options, progress, rate=settings.learning_rate, helpers=helpers, folder=output)


@dataclasses.dataclass(frozen=True)
class Helpers:
    """What a further process of the same search needs; picklable where `load` is."""

    load: Callable[[], Task]
    options: SearchOptions
    settings: StudySettings
    output: Path
    study: str
    progress: ProgressContext

    def work(self) -> None:
        """A helper's whole life."""
        options, settings = self.options, self.settings
        with self.progress() as progress:
            bench = TaskBench(
                self.load(), settings, self.output, metric=options.metric, folds=options.folds, progress=progress
            )
            storage = open_storage(options.storage, self.output)
            study = study_of(bench, storage, self.study, options)
            Worker(study, bench, options, settings.learning_rate).work()


def study_of(bench: Bench, storage: BaseStorage, name: str, options: SearchOptions) -> optuna.Study:
    """The study of a search, made if there is none. Raises `RequestError` as `open_study` does."""
    return open_study(
        storage,
        name,
        {**bench.identity(), "search": options.shared()},
        metrics=(options.metric, "train seconds") if options.pareto else (options.metric,),
        sampler=sampler_of(options),
        pruner=pruner_of(options),
    )


def conduct(
    bench: Bench,
    storage: BaseStorage,
    name: str,
    options: SearchOptions,
    progress: ProgressListener,
    *,
    rate: float,
    title: str | None = None,
    helpers: Helpers | None = None,
    folder: Path | None = None,
) -> DepthSearch:
    """A search on any bench: see `search`."""
    study = study_of(bench, storage, name, options)
    worker = Worker(study, bench, options, rate)
    wanted, done = worker.queue.prepare()
    if isinstance(bench, TaskBench):
        progress.study_begins(
            bench.task, max(wanted, options.trials or 0) * len(worker.units), done * len(worker.units)
        )
    try:
        if helpers is not None:
            run_workers(helpers.work, options.workers)
        worker.work()
        chosen = worker.chosen()
        tests = score_on_test(bench, storage, f"{name} (test split)", worker.units, chosen)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Interrupted: what is done is kept in {folder or name}; the same command goes on from there."
        ) from error
    found = answer(bench, worker, tests, title or _title(bench), folder)
    if isinstance(bench, TaskBench) and folder is not None:
        leave(bench, worker, chosen, folder, found)
    return found


def _title(bench: Bench) -> str:
    if not isinstance(bench, TaskBench):
        return f"a model with {bench.depth} blocks"
    task, model = bench.task, bench.model
    return f"data set {task.dataset}, {task.train_examples:,} examples, model {model.name} with {model.blocks} blocks"
