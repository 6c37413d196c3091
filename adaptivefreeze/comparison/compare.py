"""`compare`: run every scenario from every seed on one task, and store each run as it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError, StudyFailed
from ..model.blocks import BlockStack
from ..model.timeline import Change, Timeline
from ..policies import Policy, is_full_fine_tuning
from ..policies.arguments import suggestion
from ..trainer.callback import FreezeCallback
from .controls import short_controls
from .equal_time import full_fine_tuning_first, run_for_equal_time
from .folder import StudyFolder
from .interrupt import check_interrupt, reliable_interrupts
from .metric_names import reported_metrics
from .prediction import RemainingTime, predicted_ratio, share_seen_again, step_shape
from .records import starting_model, task_record
from .result import FailedRun, ModelRecord, RunResult
from .run import run_or_record_failure, warm_up
from .scenarios import expand
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task


class ProgressListener:
    """Receives the progress of a study; the methods of this base class do nothing. Times are in seconds."""

    def study_begins(self, task: Task, runs: int, stored: int) -> None:
        """The study wants `runs` runs on `task`, of which `stored` are stored already."""

    def warming_up(self) -> None:
        """A throw-away model is about to train for a few steps, so that start-up costs are not timed."""

    def run_begins(self, scenario: str, seed: int) -> None:
        """A run is about to begin."""

    def stepped(self, done: int, total: int, remaining: float | None) -> None:
        """`done` of the run's `total` steps are done; `remaining`: seconds left for the study, None if unknown."""

    def scoring(self, scenario: str, done: int, total: int) -> None:
        """The last phase of a search: `scenario` is about to be scored on the test split, after `done` of `total`."""

    def run_ended(self, run: RunResult | FailedRun) -> None:
        """A run has been stored."""


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        folder: The folder of the study.
        results: All finished runs in the folder.
        failures: All failed runs in the folder.
        ran: The number of runs that this call made.
    """

    folder: Path
    results: tuple[RunResult, ...]
    failures: tuple[FailedRun, ...]
    ran: int


class Interrupted(KeyboardInterrupt):
    """Raised on Ctrl-C; the message says which results are kept and how to continue."""


def compare(
    task: Task,
    *,
    scenarios: Sequence[str | Policy] = ("paper",),
    seeds: Sequence[int] = (0,),
    settings: StudySettings | None = None,
    output: str | Path,
    force: bool = False,
    short_full: bool = False,
    progress: ProgressListener | None = None,
) -> Comparison:
    """Run every scenario from every seed, and store each run in `output`.

    Runs that are stored already are skipped, failed ones are repeated. A run that fails is stored with the reason, and
    the next one begins. The request is validated before anything is run or written.

    Args:
        task: The task.
        scenarios: Policies, specs such as `bottom-up:6`, and names of sets such as `paper`.
        seeds: The seeds of each scenario.
        settings: How each run is trained.
        output: The folder of the study.
        force: Repeat runs that are stored already.
        short_full: Afterwards, run full fine-tuning with a shorter schedule for each share of its time, in tenths, that
            a scenario took.
        progress: Receives the progress.

    Returns:
        All runs in the folder.

    Raises:
        RequestError: The request is invalid, or the folder belongs to another study.
        StudyFailed: A result cannot be written, as on a full disk. Finished runs are kept.
        Interrupted: On Ctrl-C.

    Example:
        >>> comparison = compare(
        ...     load_task("data/conll2003", model="bert-base-cased"),
        ...     scenarios=["nothing", BottomUp(6)],
        ...     seeds=[0, 1, 2],
        ...     output="runs/conll2003",
        ... )
    """
    settings, progress = settings or StudySettings(), progress or ProgressListener()
    check_seeds(seeds)
    stack, model = starting_model(task)
    policies = expand(scenarios, stack.depth)
    check_policies(policies, stack, settings, task.kind)
    same_time = settings.match == "time"
    if same_time and short_full:
        raise RequestError("--short-full needs --match steps: with --match time every scenario takes the same time.")
    folder = StudyFolder(output)
    folder.claim(task_record(task), model, settings)

    if same_time or short_full:
        policies = full_fine_tuning_first(policies, stack)
    reference = str(policies[0]) if same_time else None
    wanted: list[tuple[Policy, int]] = []

    def plan(policies: Sequence[Policy]) -> list[tuple[Policy, int]]:
        """Plan these scenarios from every seed, and return the runs that are to do."""
        added = [(policy, seed) for seed, policy in product(seeds, policies) if (policy, seed) not in wanted]
        wanted.extend(added)
        folder.plan((str(policy), seed) for policy, seed in added)
        return [(p, s) for p, s in added if force or not _finished(folder.find(str(p), s))]

    todo = plan(policies)
    progress.study_begins(task, len(wanted), len(wanted) - len(todo))
    try:
        with reliable_interrupts():
            _run_all(task, todo, settings, stack, model, folder, progress, reference)
            if short_full:
                controls = plan(short_controls(_results(folder)))
                _run_all(task, controls, settings, stack, model, folder, progress, reference, first=len(todo))
                todo += controls
    except (KeyboardInterrupt, OSError) as error:
        finished = sum(_finished(folder.find(str(p), s)) for p, s in wanted)
        kept = f"{finished} of {len(wanted)} runs are kept in {folder.path}; run the same command again to continue."
        if isinstance(error, OSError):
            raise StudyFailed(f"{error.strerror or error} ({error.filename or folder.path}): {kept}") from error
        raise Interrupted(f"Interrupted: {kept}") from error
    return Comparison(
        folder=folder.path,
        results=_results(folder),
        failures=tuple(run for run in folder.runs() if isinstance(run, FailedRun)),
        ran=len(todo),
    )


def _results(folder: StudyFolder) -> tuple[RunResult, ...]:
    return tuple(run for run in folder.runs() if isinstance(run, RunResult))


def _finished(run: RunResult | FailedRun | None) -> bool:
    """Whether `run` is complete; the trials of a search have no scores on the test split."""
    return isinstance(run, RunResult) and run.metrics is not None


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `RequestError` unless the seeds are distinct, valid for all random generators, and not empty."""
    if not seeds or any(not 0 <= seed < 2**32 for seed in seeds):
        raise RequestError(f"seeds {' '.join(map(str, seeds)) or 'nothing'}: pass integers from 0 to 2³² − 1.")
    if len(set(seeds)) != len(seeds):
        raise RequestError(f"seeds {' '.join(map(str, seeds))} contains a seed twice: pass each once.")


def check_policies(policies: Sequence[Policy], stack: BlockStack, settings: StudySettings, kind: str) -> None:
    """Raise `RequestError` for a policy that does not fit the model or the kind of task, or for invalid settings."""
    settings.arguments("unused", seed=0)
    metrics = reported_metrics(kind)
    for policy in policies:
        FreezeCallback(policy, cache=settings.cache)
        metric = policy.watched_metric
        if metric is not None and metric.removeprefix("eval_") not in metrics:
            near = suggestion(metric.removeprefix("eval_"), metrics)
            raise RequestError(f"{policy}: {metric} is not reported; this task has {', '.join(metrics)}.{near}")
        mask = policy.initial_mask(stack)
        if stack.trainable_parameters(mask) == 0:
            raise RequestError(f"{policy} leaves no parameter of this model to train: freeze less.")


def _run_all(
    task: Task,
    todo: Sequence[tuple[Policy, int]],
    settings: StudySettings,
    stack: BlockStack,
    model: ModelRecord,
    folder: StudyFolder,
    progress: ProgressListener,
    reference: str | None,
    first: int = 0,
) -> None:
    """Run and store what is to do, after `first` other runs.

    With a `reference`, each run takes the time of that scenario's run.
    """
    if not todo:
        return
    progress.warming_up()
    warm_up(task, settings)
    shape = step_shape(task, settings)
    seen_again = share_seen_again(settings.epochs) if settings.cache else 0.0
    # Changes of a mask are not known in advance, so each run is assumed to keep its initial mask.
    starts = [Timeline([Change(0, policy.initial_mask(stack), policy.reason)]) for policy, _ in todo]
    remaining = RemainingTime([predicted_ratio(stack, start, 1, shape, seen_again) for start in starts])

    def stepped(done: int, total: int) -> None:
        remaining.stepped(done, total)
        progress.stepped(done, total, remaining.seconds())

    for order, (policy, seed) in enumerate(todo, first):
        check_interrupt()
        progress.run_begins(str(policy), seed)
        train = partial(
            run_or_record_failure,
            task,
            policy,
            seed,
            model=model,
            order=order,
            on_step=stepped,
            checkpoints=folder.checkpoints(str(policy), seed) if settings.keeps_checkpoints else None,
        )
        full = None if reference is None else folder.find(reference, seed)
        if full is not None and not is_full_fine_tuning(policy, stack):
            run = run_for_equal_time(train, settings, policy, stack, shape, folder, full)
        else:
            run = train(settings)
        folder.store(run)
        remaining.run_ended()
        progress.run_ended(run)
