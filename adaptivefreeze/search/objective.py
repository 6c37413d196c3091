"""Bench: trains a candidate on a unit and says how it went; what is stored already is not trained again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..cache import PrefixCache
from ..comparison.compare import ProgressListener
from ..comparison.folder import StudyFolder, description
from ..comparison.prediction import predicted_ratio, share_seen_again, step_shape
from ..comparison.records import model_record, task_record
from ..comparison.result import FailedRun, ModelRecord, RunResult
from ..comparison.run import attempt, score_saved, warm_up
from ..comparison.settings import StudySettings
from ..errors import RequestError
from ..model.blocks import BlockStack, find_blocks
from ..model.cost import run_ratio
from ..model.timeline import Change, Timeline
from ..policies import Policy, parse_policy
from .units import Unit, fold_tasks

if TYPE_CHECKING:
    from ..data import Task

METRICS = ("macro_f1", "entity_f1", "weighted_f1", "accuracy")


class TrialFailed(RuntimeError):
    """A training of the trial failed; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """What a trial tries: a policy's spec and, where it is searched for too, a learning rate."""

    scenario: str
    learning_rate: float | None = None

    def __str__(self) -> str:
        return self.scenario if self.learning_rate is None else f"{self.scenario} at {self.learning_rate:g}"


@dataclass(frozen=True)
class Measurement:
    """One training: `score` on the unit's validation examples; `seconds` of its steps; `spared`, the work that rows of
    other trials took from it, as a share of a full fine-tuning; `memory` in bytes, None where it was not measured."""

    score: float
    seconds: float
    spared: float = 0.0
    memory: int | None = None


class Bench(Protocol):
    """What a search needs of whatever trains: a task of `adaptivefreeze.data`, or a person's own Trainer."""

    depth: int
    has_test: bool

    def identity(self) -> dict[str, Any]:
        """What makes two studies the same, as plain JSON."""

    def measure(self, candidate: Candidate, unit: Unit, *, keep: bool) -> Measurement:
        """Train, or read what an earlier training has stored. With `keep` the model is kept. Raises `TrialFailed`."""

    def cost(self, candidate: Candidate) -> float:
        """Predicted time of a run / that of full fine-tuning."""

    def test(self, candidate: Candidate, unit: Unit) -> dict[str, float]:
        """Scores on the test split, of the model that `measure` has trained; none where there is no test split."""


class TaskBench:
    """Trains on a `Task` under `folder`: a RunResult a training, a model for as long as it may be chosen, and rows.

    A candidate's runs lie in `runs`; those of a fold or of another learning rate in a study folder of their own below.
    """

    has_test = True

    def __init__(
        self,
        task: Task,
        settings: StudySettings,
        folder: Path,
        *,
        metric: str,
        folds: int | None,
        progress: ProgressListener,
    ) -> None:
        self.task, self.settings, self.folder, self.metric, self.progress = task, settings, folder, metric, progress
        self._tasks = fold_tasks(task, folds) if folds else ()
        self._folds = folds
        start = task.new_model(0)
        self.stack: BlockStack = find_blocks(start)
        self.model: ModelRecord = model_record(task, start, self.stack)
        self.depth = self.stack.depth
        self._rows = folder / "rows"
        self._cache = PrefixCache(disk=self._rows) if settings.cache else None
        self._shape = step_shape(task, settings)
        self._warm = False
        self._order = 0

    def identity(self) -> dict[str, Any]:
        described = description(task_record(self.task), self.model, self.settings)
        return {**described, "search": {}}

    def check_metric(self) -> None:
        """Raises `RequestError` for a metric that this task does not report."""
        reported = [name for name in METRICS if name != "entity_f1" or self.task.kind == "ner"]
        if self.metric not in reported:
            raise RequestError(f"--metric {self.metric} is not reported; this task has {', '.join(reported)}.")

    def measure(self, candidate: Candidate, unit: Unit, *, keep: bool) -> Measurement:
        policy, folder = parse_policy(candidate.scenario), self.study(candidate, unit)
        run = folder.find(candidate.scenario, unit.seed)
        if not isinstance(run, RunResult):
            run = self._train(policy, candidate, unit, folder, keep)
        if isinstance(run, FailedRun):
            raise TrialFailed(f"{candidate}, {unit}: {run.error}")
        score = getattr(run.validation[-1], self.metric)
        return Measurement(score, run.train_seconds, self._spared(policy, run), run.peak_memory_bytes)

    def cost(self, candidate: Candidate) -> float:
        policy = parse_policy(candidate.scenario)
        start = Timeline([Change(0, policy.initial_mask(self.stack), policy.reason)])
        seen_again = share_seen_again(self.settings.epochs) if self.settings.cache else 0.0
        return predicted_ratio(self.stack, start, 1, self._shape, seen_again)

    def test(self, candidate: Candidate, unit: Unit) -> dict[str, float]:
        policy, folder = parse_policy(candidate.scenario), self.study(candidate, unit)
        run, model = folder.find(candidate.scenario, unit.seed), self.model_folder(candidate, unit)
        if not isinstance(run, RunResult) or (run.metrics is None and not model.is_dir()):
            # Trained on another machine, or given up because it could not be chosen then: the same training again.
            run = self._train(policy, candidate, unit, folder, keep=True)
        if isinstance(run, FailedRun):
            raise TrialFailed(f"{candidate}, {unit}: {run.error}")
        if run.metrics is None:
            metrics = score_saved(model, self._task(unit), self.settings.arguments("unused", unit.seed))
            run = dataclasses.replace(run, metrics=metrics)
            folder.store(run)
        return {name: value for name in METRICS if (value := getattr(run.metrics, name)) is not None}

    def study(self, candidate: Candidate, unit: Unit) -> StudyFolder:
        """Where the runs of this candidate and unit lie, made ready."""
        parts = [] if unit.fold is None else [f"fold-{unit.fold + 1}-of-{self._folds}"]
        parts += [] if candidate.learning_rate is None else [f"lr-{candidate.learning_rate:g}"]
        folder = StudyFolder(self.folder.joinpath(*parts))
        folder.claim(task_record(self._task(unit)), self.model, self._settings(candidate))
        return folder

    def model_folder(self, candidate: Candidate, unit: Unit) -> Path:
        """Where the trained model is kept for as long as the candidate may be chosen."""
        study = self.study(candidate, unit)
        return study.path / "models" / study.run_path(candidate.scenario, unit.seed).stem

    def give_up(self, candidate: Candidate, units: Sequence[Unit]) -> None:
        """Delete the models of a candidate that will not be chosen."""
        for unit in units:
            shutil.rmtree(self.model_folder(candidate, unit), ignore_errors=True)

    def rows(self) -> set[Path]:
        """The files of rows that are there now."""
        return set(self._rows.glob("*.rows"))

    def drop_rows(self) -> None:
        """The search is over: nothing will read the rows again."""
        shutil.rmtree(self._rows, ignore_errors=True)

    def _train(
        self, policy: Policy, candidate: Candidate, unit: Unit, folder: StudyFolder, keep: bool
    ) -> RunResult | FailedRun:
        task, settings = self._task(unit), self._settings(candidate)
        if not self._warm:
            self.progress.warming_up()
            warm_up(task, settings)
            self._warm = True
        held = self._cache.stats.memory_bytes if self._cache else 0
        model = self.model_folder(candidate, unit)
        shutil.rmtree(model, ignore_errors=True)
        self.progress.run_begins(f"{candidate}{'' if unit.fold is None else f', fold {unit.fold + 1}'}", unit.seed)
        run = attempt(
            task,
            policy,
            unit.seed,
            settings,
            model=self.model,
            order=self._order,
            listener=_step_listener(self.progress),
            save_to=model if keep else None,
            checkpoints=folder.checkpoints(str(policy), unit.seed) if settings.keeps_checkpoints else None,
            prefix_cache=self._cache,
            test=False,
        )
        self._order += 1
        if isinstance(run, RunResult) and policy.initial_mask(self.stack).prefix >= 2:
            # Rows that were in memory before the run began are needed by it as much as those that it added.
            run = dataclasses.replace(run, peak_memory_bytes=run.peak_memory_bytes + held)
        folder.store(run)
        self.progress.run_ended(run)
        return run

    def _spared(self, policy: Policy, run: RunResult) -> float:
        """One forward pass through the frozen prefix for each training example that the run found rows of.

        A row that was carried up from a shallower depth counts as found, and what carrying cost was measured besides:
        the time of a run on its own is rather over- than underestimated.
        """
        stats = run.cache_stats
        if not stats or stats.get("disabled_reason"):
            return 0.0
        frozen = Timeline([Change(0, policy.initial_mask(self.stack), policy.reason)])
        whole, skipped = (run_ratio(self.stack, frozen, 1, self._shape, cached=cached) for cached in (False, True))
        found: float = max(0.0, 1 - stats["misses"] / run.task.train_examples)
        return found * (whole - skipped) / max(1.0, self.settings.epochs)

    def _task(self, unit: Unit) -> Task:
        return self.task if unit.fold is None else self._tasks[unit.fold]

    def _settings(self, candidate: Candidate) -> StudySettings:
        rate = candidate.learning_rate
        return self.settings if rate is None else dataclasses.replace(self.settings, learning_rate=rate)


def _step_listener(progress: ProgressListener) -> Callable[[int, int], None]:
    return lambda done, total: progress.stepped(done, total, None)
