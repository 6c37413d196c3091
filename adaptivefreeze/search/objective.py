"""The objective of a search: train one candidate with one seed or fold, and return its score and its cost."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import PrefixCache
from ..comparison.compare import ProgressListener
from ..comparison.folder import StudyFolder, description
from ..comparison.prediction import share_seen_again, step_shape
from ..comparison.records import starting_model, task_record
from ..comparison.result import FailedRun, RunResult
from ..comparison.run import run_or_record_failure, score_saved, warm_up
from ..comparison.settings import StudySettings
from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.cost import StepShape, step_ratio
from ..policies import Policy

if TYPE_CHECKING:
    from ..data import Task

METRICS = ("macro_f1", "entity_f1", "weighted_f1", "accuracy")

_SHUFFLE_SEED = 0  # fixed, so that every candidate, seed and process uses the same folds


class TrialFailed(RuntimeError):
    """A training of the trial failed; the message gives the reason."""


@dataclass(frozen=True, order=True)
class Replicate:
    """One training of a candidate: `seed` decides head, dropout and data order, `fold` the validation examples."""

    seed: int
    fold: int | None = None

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed} fold {self.fold + 1}"

    @classmethod
    def parse(cls, text: str) -> Replicate:
        """Return the replicate whose `str` is `text`.

        >>> Replicate.parse("seed 3 fold 1")
        Replicate(seed=3, fold=0)
        """
        words = text.split()
        return cls(int(words[1]), int(words[3]) - 1 if len(words) > 2 else None)


def replicates_of(seeds: Sequence[int], folds: int | None) -> tuple[Replicate, ...]:
    """Return every seed on every fold; without folds, every seed on the validation split."""
    return tuple(Replicate(seed, fold) for seed in seeds for fold in (range(folds) if folds else (None,)))


@dataclass(frozen=True)
class Candidate:
    """What a trial trains: a policy and, where the search varies it, a learning rate.

    Candidates are equal if their policies have the same spec and their learning rates are equal.
    """

    policy: Policy = field(compare=False)
    learning_rate: float | None = None
    scenario: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenario", str(self.policy))

    def __str__(self) -> str:
        return self.scenario if self.learning_rate is None else f"{self.scenario} at {self.learning_rate:g}"


@dataclass(frozen=True)
class Measurement:
    """The result of one training: validation score, seconds of its steps, and peak memory in bytes.

    `saved` is the work that cached rows of earlier trials saved, as a share of a full fine-tuning.
    """

    score: float
    seconds: float
    saved: float = 0.0
    memory: int | None = None


class Objective(ABC):
    """Trains the candidates of a search and scores them.

    With `cached`, all trainings share a prefix cache, whose rows are stored in the folder `rows` or in memory.
    """

    has_test = False
    """Whether there is a test split."""

    def __init__(
        self,
        stack: BlockStack,
        title: str,
        *,
        epochs: float,
        cached: bool,
        rows: Path | None,
        shape: StepShape | None = None,
    ) -> None:
        self.stack, self.depth, self.title = stack, stack.depth, title
        self.cache = PrefixCache(disk=rows) if cached else None
        self._epochs, self._rows, self._shape = epochs, rows, shape

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what two searches must have in common to share a study, as plain JSON."""

    @abstractmethod
    def measure(self, candidate: Candidate, replicate: Replicate, *, keep: bool) -> Measurement:
        """Train, or read the result of an earlier training; with `keep` the model is kept for `test`.

        Raises:
            TrialFailed: If the training fails.
        """

    def test(self, candidate: Candidate, replicate: Replicate) -> dict[str, float]:
        """Return the scores of a trained model on the test split, empty if there is no test split."""
        return {}

    def discard(self, candidate: Candidate, replicates: Sequence[Replicate]) -> None:
        """Delete the models of a candidate that will not be chosen."""
        return  # no models are kept

    def report_start(self, trainings: int, done: int) -> None:
        """Report how many trainings the search plans and how many of them are done."""
        return  # nothing listens

    def cost(self, candidate: Candidate) -> float:
        """Return the predicted time of a run / that of full fine-tuning."""
        mask = candidate.policy.initial_mask(self.stack)
        again = 0.0 if self.cache is None else share_seen_again(self._epochs)
        run, skipped = (step_ratio(self.stack, mask, self._shape, cached=cached) for cached in (False, True))
        return (1 - again) * run + again * skipped

    def rows(self) -> set[Path]:
        """Return the files of cached rows that exist now."""
        return set() if self._rows is None else set(self._rows.glob("*.rows"))

    def drop_rows(self) -> None:
        """Delete all cached rows, at the end of the search."""
        if self._rows is not None:
            shutil.rmtree(self._rows, ignore_errors=True)

    def _saved(self, policy: Policy, misses: int, examples: int) -> float:
        """Return the work saved by rows of earlier trials, as a share of a full fine-tuning.

        It is one forward pass through the frozen prefix for each training example whose row was found. A row carried
        up from a shallower depth counts as found although carrying it took measured time, so the time of a run on its
        own is over- rather than underestimated.
        """
        mask = policy.initial_mask(self.stack)
        if mask.prefix < 2:
            return 0.0  # there is nothing to cache
        run, skipped = (step_ratio(self.stack, mask, self._shape, cached=cached) for cached in (False, True))
        return max(0.0, 1 - misses / examples) * (run - skipped) / max(1.0, self._epochs)


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
        *,
        metric: str,
        folds: int | None,
        progress: ProgressListener,
    ) -> None:
        self.task, self.settings, self.folder, self.metric, self.progress = task, settings, folder, metric, progress
        self._folds, self._fold_tasks = folds, fold_tasks(task, folds) if folds else ()
        stack, self.model = starting_model(task)
        super().__init__(
            stack,
            f"data set {task.dataset}, {task.train_examples:,} examples, "
            f"model {self.model.name} with {self.model.blocks} blocks",
            epochs=settings.epochs,
            cached=settings.cache,
            rows=folder / "rows",
            shape=step_shape(task, settings),
        )
        self._warm = False
        self._order = 0

    def identity(self) -> dict[str, Any]:
        return description(task_record(self.task), self.model, self.settings)

    def check_metric(self, *, greater_is_better: bool = True) -> None:
        """Raise `RequestError` if the task does not report the metric, or the metric is to be minimized."""
        reported = [name for name in METRICS if name != "entity_f1" or self.task.kind == "ner"]
        if self.metric not in reported:
            raise RequestError(f"--metric {self.metric} is not reported; this task has {', '.join(reported)}.")
        if not greater_is_better:
            raise RequestError(f"`{self.metric}` is maximized; pass greater_is_better=True.")

    def measure(self, candidate: Candidate, replicate: Replicate, *, keep: bool) -> Measurement:
        run = self._folder(candidate, replicate).find(candidate.scenario, replicate.seed)
        if not isinstance(run, RunResult):
            run = self._train(candidate, replicate, keep)
        stats, saved = run.cache_stats, 0.0
        if stats and not stats.get("disabled_reason"):
            saved = self._saved(candidate.policy, stats["misses"], run.task.train_examples)
        return Measurement(getattr(run.validation[-1], self.metric), run.train_seconds, saved, run.peak_memory_bytes)

    def test(self, candidate: Candidate, replicate: Replicate) -> dict[str, float]:
        folder, model = self._folder(candidate, replicate), self._model_folder(candidate, replicate)
        run = folder.find(candidate.scenario, replicate.seed)
        if not isinstance(run, RunResult) or (run.metrics is None and not model.is_dir()):
            # Trained on another machine, or the model was deleted: repeat the same training.
            run = self._train(candidate, replicate, keep=True)
        if run.metrics is None:
            metrics = score_saved(model, self._task(replicate), self.settings.arguments("unused", replicate.seed))
            run = dataclasses.replace(run, metrics=metrics)
            folder.store(run)
        return {name: value for name in METRICS if (value := getattr(run.metrics, name)) is not None}

    def discard(self, candidate: Candidate, replicates: Sequence[Replicate]) -> None:
        for replicate in replicates:
            shutil.rmtree(self._model_folder(candidate, replicate), ignore_errors=True)

    def report_start(self, trainings: int, done: int) -> None:
        self.progress.study_begins(self.task, trainings, done)

    def _train(self, candidate: Candidate, replicate: Replicate, keep: bool) -> RunResult:
        task, settings, folder = self._task(replicate), self._settings(candidate), self._folder(candidate, replicate)
        policy, seed = candidate.policy, replicate.seed
        if not self._warm:
            self.progress.warming_up()
            warm_up(task, settings)
            self._warm = True
        held = self.cache.stats.memory_bytes if self.cache else 0
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
            on_step=lambda done, total: self.progress.stepped(done, total, None),
            save_to=model if keep else None,
            checkpoints=folder.checkpoints(candidate.scenario, seed) if settings.keeps_checkpoints else None,
            prefix_cache=self.cache,
            test=False,
        )
        self._order += 1
        if isinstance(run, RunResult) and policy.initial_mask(self.stack).prefix >= 2:
            # The run needs rows that were in memory before it began as much as those that it added.
            run = dataclasses.replace(run, peak_memory_bytes=run.peak_memory_bytes + held)
        folder.store(run)
        self.progress.run_ended(run)
        if isinstance(run, FailedRun):
            raise TrialFailed(f"{candidate}, {replicate}: {run.error}")
        return run

    def _folder(self, candidate: Candidate, replicate: Replicate) -> StudyFolder:
        """Return the study folder of a candidate's runs, created if need be."""
        parts = [] if replicate.fold is None else [f"fold-{replicate.fold + 1}-of-{self._folds}"]
        parts += [] if candidate.learning_rate is None else [f"lr-{candidate.learning_rate:g}"]
        folder = StudyFolder(self.folder.joinpath(*parts))
        folder.claim(task_record(self._task(replicate)), self.model, self._settings(candidate))
        return folder

    def _model_folder(self, candidate: Candidate, replicate: Replicate) -> Path:
        """Return the folder of the trained model."""
        folder = self._folder(candidate, replicate)
        return folder.path / "models" / folder.run_path(candidate.scenario, replicate.seed).stem

    def _task(self, replicate: Replicate) -> Task:
        return self.task if replicate.fold is None else self._fold_tasks[replicate.fold]

    def _settings(self, candidate: Candidate) -> StudySettings:
        rate = candidate.learning_rate
        return self.settings if rate is None else dataclasses.replace(self.settings, learning_rate=rate)


def fold_tasks(task: Task, folds: int) -> tuple[Task, ...]:
    """Return `folds` tasks, each validated on its own part of the training split and trained on the others.

    Parts are stratified: by the classes of texts, for NER by the set of entity classes of a sentence. The test split
    is that of `task`.

    Raises:
        RequestError: If there are fewer than 2 folds, or fewer training examples than folds.
    """
    examples = task.train_examples
    if not 2 <= folds <= examples:
        raise RequestError(
            f"--folds {folds} is not possible: give a number from 2 to {examples}, the training examples."
        )
    from sklearn.model_selection import StratifiedKFold

    split = StratifiedKFold(folds, shuffle=True, random_state=_SHUFFLE_SEED)
    parts = split.split(range(examples), strata(task, folds))
    names = [f"fold {number + 1} of {folds}" for number in range(folds)]
    return tuple(
        dataclasses.replace(
            task,
            dataset=f"{task.dataset}, {name}",
            fingerprint=hashlib.sha256(f"{task.fingerprint} {name}".encode()).hexdigest(),
            train=task.train.select(list(kept)),
            validation=task.train.select(list(held)),
        )
        for name, (kept, held) in zip(names, parts, strict=True)
    )


def strata(task: Task, folds: int) -> list[str]:
    """Return a stratum for each training example, each with at least `folds` members except the one of the rest."""
    column = task.train["labels"]
    if task.kind == "classification":
        return [task.labels[label] for label in column]
    tags = [[task.labels[label] for label in row if label >= 0] for row in column]
    classes = [[tag[2:] for tag in row if tag.startswith("B-")] for row in tags]
    found = ["+".join(sorted(set(row))) for row in classes]
    # A set of classes too rare for every part counts as its most frequent class, and if that is too rare, as none.
    overall = Counter(name for row in classes for name in row)
    sizes = Counter(found)
    for row, names in enumerate(classes):
        if sizes[found[row]] < folds:
            found[row] = max(sorted(set(names)), key=overall.__getitem__, default="")
    sizes = Counter(found)
    return [name if sizes[name] >= folds else "" for name in found]
