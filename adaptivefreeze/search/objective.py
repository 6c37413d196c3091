"""The objective of a search: train one candidate with one seed or fold, and return its score and its cost."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..cache import PrefixCache
from ..comparison.compare import ProgressListener
from ..comparison.folder import StudyFolder, description
from ..comparison.metric_names import LOSS, SCORES, reported_metrics
from ..comparison.prediction import RemainingTime, share_seen_again, step_shape
from ..comparison.records import starting_model, task_record
from ..comparison.result import FailedRun, RunResult
from ..comparison.run import run_or_record_failure, score_saved, warm_up
from ..comparison.settings import StudySettings
from ..comparison.statistics import Guessing
from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.cost import StepShape, step_ratio
from ..policies import Policy
from ..policies.arguments import suggestion
from .space import SearchOptions
from .trials import Candidate, Measurement, Replicate, TrialFailed

if TYPE_CHECKING:
    from ..data import Task


class Objective(ABC):
    """Trains the candidates of a search and scores them.

    With `cached`, all trainings share a prefix cache, whose rows are stored in the folder `rows` or in memory.
    """

    has_test = False

    def __init__(
        self,
        stack: BlockStack,
        title: str,
        *,
        epochs: float,
        learning_rate: float,
        cached: bool,
        rows: Path | None,
        shape: StepShape | None = None,
    ) -> None:
        self.stack, self.depth, self.title, self.learning_rate = stack, stack.depth, title, learning_rate
        self.cache = PrefixCache(disk=rows) if cached else None
        self._epochs, self._rows, self._shape = epochs, rows, shape

    def identity(self, options: SearchOptions) -> dict[str, Any]:
        """Return what two searches must have in common to share a study, as plain JSON."""
        return {**self._description(), "search": options.identity()}

    @abstractmethod
    def _description(self) -> dict[str, Any]:
        """The task, the model and the settings, as plain JSON."""

    @abstractmethod
    def measure(self, candidate: Candidate, replicate: Replicate, *, keep: bool) -> Measurement:
        """Train, or read an earlier result; `keep` the model for `test`. Raises `TrialFailed` if the training fails."""

    def test(self, candidate: Candidate, replicate: Replicate) -> dict[str, float]:
        """Return the scores of a trained model on the test split, empty if there is no test split."""
        return {}

    def guessing(self, metric: str) -> float | None:
        """Return the score of always answering the most frequent label, or None if it is unknown."""
        return None

    def discard(self, candidate: Candidate, replicates: Sequence[Replicate]) -> None:
        """Delete the models of a candidate that will not be chosen."""
        return  # no models are kept

    def report_start(self, trainings: int, done: int, left: Sequence[Candidate] = ()) -> None:
        """Report how many trainings the search plans, how many are done, and the candidates of those that are left."""
        return  # nothing listens

    def report_scoring(self, candidate: Candidate, done: int, total: int) -> None:
        """Report that a candidate is about to be scored on the test split, after `done` of `total`."""
        return  # nothing listens

    def cost(self, policy: Policy) -> float:
        """Return the predicted time of a run / that of full fine-tuning."""
        again = 0.0 if self.cache is None else share_seen_again(self._epochs)
        run, skipped = self._step_ratios(policy)
        return (1 - again) * run + again * skipped

    def rows(self) -> set[Path]:
        """Return the files of cached rows that exist now."""
        return set() if self._rows is None else set(self._rows.glob("*.rows"))

    def drop_rows(self) -> None:
        """Delete all cached rows, at the end of the search."""
        if self._rows is not None:
            shutil.rmtree(self._rows, ignore_errors=True)

    def _step_ratios(self, policy: Policy) -> tuple[float, float]:
        """The predicted time of a step / that of full fine-tuning, without and with cached rows."""
        mask = policy.initial_mask(self.stack)
        run, skipped = (step_ratio(self.stack, mask, self._shape, cached=cached) for cached in (False, True))
        return run, skipped

    def _held(self, policy: Policy) -> int:
        """The memory of rows that a run of `policy` finds in the cache, in bytes."""
        if self.cache is None or self.stack.prefix(policy.initial_mask(self.stack)) < 2:
            return 0  # there is nothing to cache
        return self.cache.stats.memory_bytes

    def _saved(self, policy: Policy, stats: Mapping[str, Any] | None, examples: int) -> float:
        """The work saved by rows of earlier trials, as a share of a full fine-tuning.

        It is one forward pass through the frozen prefix for each training example whose row was found, also if it was
        carried up from a shallower depth, which took measured time: the time of a run alone is not underestimated.
        """
        if not stats or stats.get("disabled_reason") or self.stack.prefix(policy.initial_mask(self.stack)) < 2:
            return 0.0
        run, skipped = self._step_ratios(policy)
        found = max(0.0, 1 - int(stats["misses"]) / examples)
        return found * (run - skipped) / max(1.0, self._epochs)


class TaskObjective(Objective):
    """Trains on a `Task` and stores every run under `folder`, so that a stored run is never trained again.

    The runs of a candidate are stored in `runs`; those of a fold or of another learning rate in a study folder of
    their own below it. Trained models are kept for as long as their candidate may be chosen.
    """

    has_test = True

    def __init__(
        self,
        task: Task,
        settings: StudySettings,
        folder: Path,
        options: SearchOptions,
        progress: ProgressListener,
    ) -> None:
        self.task, self.settings, self.folder, self.progress = task, settings, folder, progress
        self.metric = options.metric
        reported = reported_metrics(task.kind)
        if options.metric not in reported:
            near = suggestion(options.metric, reported)
            raise RequestError(f"metric {options.metric} is not reported; this task has {', '.join(reported)}.{near}")
        if options.greater_is_better != (options.metric != LOSS):
            direction = "minimized" if options.greater_is_better else "maximized"
            raise RequestError(
                f"{options.metric} is {direction}; pass greater_is_better={not options.greater_is_better}."
            )
        self._fold_tasks: tuple[Task, ...] = ()
        if options.folds is not None:
            from ..data.folds import fold_tasks

            self._fold_tasks = fold_tasks(task, options.folds)
        self._order = 0
        self._remaining: RemainingTime | None = None
        stack, self.model = starting_model(task)
        super().__init__(
            stack,
            f"data set {task.dataset}, {task.train_examples:,} examples, "
            f"model {self.model.name} with {self.model.blocks} blocks",
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            cached=settings.cache,
            rows=folder / "rows",
            shape=step_shape(task, settings),
        )

    def _description(self) -> dict[str, Any]:
        return description(task_record(self.task), self.model, self.settings)

    def measure(self, candidate: Candidate, replicate: Replicate, *, keep: bool) -> Measurement:
        run = self._folder(candidate, replicate).find(candidate.scenario, replicate.seed)
        if not isinstance(run, RunResult):
            run = self._train(candidate, replicate, keep)
        saved = self._saved(candidate.policy, run.cache_stats, run.task.train_examples)
        score = getattr(run.validation[-1], self.metric)
        if score is None:
            raise TrialFailed(f"{candidate}, {replicate}: the validation {self.metric} is not finite")
        return Measurement(score, run.train_seconds, saved, run.peak_memory_bytes)

    def test(self, candidate: Candidate, replicate: Replicate) -> dict[str, float]:
        folder, model = self._folder(candidate, replicate), self._model_folder(candidate, replicate)
        run = folder.find(candidate.scenario, replicate.seed)
        if not isinstance(run, RunResult) or (run.metrics is None and not model.is_dir()):
            # Trained on another machine, or the model was deleted: repeat the same training.
            run = self._train(candidate, replicate, keep=True)
        if run.metrics is None:
            metrics = score_saved(model, self._task(replicate), self.settings.arguments("unused", replicate.seed))
            run = replace(run, metrics=metrics)
            folder.store(run)
        return {name: value for name in SCORES if (value := getattr(run.metrics, name)) is not None}

    def guessing(self, metric: str) -> float | None:
        if self._fold_tasks or metric == LOSS:
            return None
        guess = Guessing.of(task_record(self.task).label_counts["validation"])
        return None if guess is None else float(getattr(guess, metric))

    def discard(self, candidate: Candidate, replicates: Sequence[Replicate]) -> None:
        for replicate in replicates:
            shutil.rmtree(self._model_folder(candidate, replicate), ignore_errors=True)

    def report_start(self, trainings: int, done: int, left: Sequence[Candidate] = ()) -> None:
        # Trainings that are planned later have the mean cost of those that are known.
        costs = [self.cost(candidate.policy) for candidate in left]
        costs += [fmean(costs or [1.0])] * max(0, trainings - done - len(costs))
        self._remaining = RemainingTime(costs)
        self.progress.study_begins(self.task, trainings, done)

    def report_scoring(self, candidate: Candidate, done: int, total: int) -> None:
        self.progress.scoring(str(candidate), done, total)

    def _stepped(self, done: int, total: int) -> None:
        if self._remaining is not None:
            self._remaining.stepped(done, total)
        self.progress.stepped(done, total, None if self._remaining is None else self._remaining.seconds())

    def _train(self, candidate: Candidate, replicate: Replicate, keep: bool) -> RunResult:
        task, settings, folder = self._task(replicate), self._settings(candidate), self._folder(candidate, replicate)
        policy, seed = candidate.policy, replicate.seed
        if self._order == 0:
            self.progress.warming_up()
            warm_up(task, settings)
        held = self._held(policy)
        model = self._model_folder(candidate, replicate)
        shutil.rmtree(model, ignore_errors=True)
        fold = "" if replicate.fold is None else f", fold {replicate.fold + 1}"
        self.progress.run_begins(f"{candidate}{fold}", seed)
        run = run_or_record_failure(
            task,
            policy,
            seed,
            settings,
            model=self.model,
            order=self._order,
            on_step=self._stepped,
            save_to=model if keep else None,
            checkpoints=folder.checkpoints(candidate.scenario, seed) if settings.keeps_checkpoints else None,
            prefix_cache=self.cache,
            test=False,
        )
        self._order += 1
        if isinstance(run, RunResult):
            # The run needs rows that were in memory before it began as much as those that it added.
            run = replace(run, peak_memory_bytes=run.peak_memory_bytes + held)
        folder.store(run)
        if self._remaining is not None:
            self._remaining.run_ended()
        self.progress.run_ended(run)
        if isinstance(run, FailedRun):
            raise TrialFailed(f"{candidate}, {replicate}: {run.error}")
        return run

    def _folder(self, candidate: Candidate, replicate: Replicate) -> StudyFolder:
        """The study folder of a candidate's runs, created if need be."""
        parts = [] if replicate.fold is None else [f"fold-{replicate.fold + 1}-of-{len(self._fold_tasks)}"]
        parts += [] if candidate.learning_rate is None else [f"lr-{candidate.learning_rate:g}"]
        folder = StudyFolder(self.folder.joinpath(*parts))
        folder.claim(task_record(self._task(replicate)), self.model, self._settings(candidate))
        return folder

    def _model_folder(self, candidate: Candidate, replicate: Replicate) -> Path:
        folder = self._folder(candidate, replicate)
        return folder.path / "models" / folder.run_path(candidate.scenario, replicate.seed).stem

    def _task(self, replicate: Replicate) -> Task:
        return self.task if replicate.fold is None else self._fold_tasks[replicate.fold]

    def _settings(self, candidate: Candidate) -> StudySettings:
        rate = candidate.learning_rate
        return self.settings if rate is None else replace(self.settings, learning_rate=rate)
