"""compare: scenarios × seeds on one task, one after another, each stored as it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.discovery import find_blocks
from ..model.timeline import Change, Timeline
from ..policies import Policy, is_full_fine_tuning
from ..trainer.callback import FreezeCallback
from .equal_time import run_matched, with_reference
from .folder import StudyFolder
from .prediction import predicted_ratio, share_seen_again, step_shape
from .records import model_record, task_record
from .result import FailedRun, ModelRecord, RunResult
from .run import attempt, warm_up
from .scenarios import expand
from .settings import StudySettings
from .time_left import RemainingTime

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

    def run_ended(self, run: RunResult | FailedRun) -> None:
        """A run has been stored."""


@dataclass(frozen=True)
class Comparison:
    """What lies in the folder after `compare`: `ran` of the runs were made by this call, the others were there."""

    folder: Path
    results: tuple[RunResult, ...]
    failures: tuple[FailedRun, ...]
    ran: int


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; its message says what is kept and how to go on."""


def compare(
    task: Task,
    *,
    scenarios: Sequence[str | Policy] = ("paper",),
    seeds: Sequence[int] = (0,),
    settings: StudySettings | None = None,
    output: str | Path,
    force: bool = False,
    progress: ProgressListener | None = None,
) -> Comparison:
    """Run every scenario from every seed that `output` does not hold yet; failed runs are run again.

    A run that fails is stored as failed with its reason and the others go on. With `force` the wanted runs are made
    again. All that can be wrong is found before anything is run or written.

    Raises `RequestError` for a wrong request and `Interrupted` on Ctrl-C.
    """
    settings, progress = settings or StudySettings(), progress or ProgressListener()
    check_seeds(seeds)
    start = task.new_model(0)
    stack = find_blocks(start)
    model = model_record(task, start, stack)
    policies = expand(scenarios, stack.depth)
    check_policies(policies, stack, settings)
    del start
    folder = StudyFolder(output)
    folder.claim(task_record(task), model, settings)

    reference = None
    if settings.match == "time":
        policies = with_reference(policies, stack)
        reference = str(policies[0])
    wanted = [(policy, seed) for seed, policy in product(seeds, policies)]
    todo = [(p, s) for p, s in wanted if force or not _finished(folder.find(str(p), s))]
    progress.study_begins(task, len(wanted), len(wanted) - len(todo))
    try:
        _run_all(task, todo, settings, stack, model, folder, progress, reference)
    except KeyboardInterrupt as error:
        finished = sum(_finished(folder.find(str(p), s)) for p, s in wanted)
        raise Interrupted(
            f"Interrupted: {finished} of {len(wanted)} runs are kept in {folder.path}; "
            "the same command goes on from there."
        ) from error
    stored = folder.runs()
    return Comparison(
        folder=folder.path,
        results=tuple(run for run in stored if isinstance(run, RunResult)),
        failures=tuple(run for run in stored if isinstance(run, FailedRun)),
        ran=len(todo),
    )


def _finished(run: RunResult | FailedRun | None) -> bool:
    """Whether `run` needs no running again; the trials of a search have not been scored on the test split."""
    return isinstance(run, RunResult) and run.metrics is not None


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises `RequestError` unless there are seeds, each once, that every generator takes."""
    if not seeds or any(not 0 <= seed < 2**32 for seed in seeds):
        raise RequestError(f"--seeds {' '.join(map(str, seeds)) or 'nothing'}: give whole numbers from 0 to 2³² − 1.")
    if len(set(seeds)) != len(seeds):
        raise RequestError(f"--seeds {' '.join(map(str, seeds))} names a seed twice: give each once.")


def check_policies(policies: Sequence[Policy], stack: BlockStack, settings: StudySettings) -> None:
    """Raises `RequestError` for a policy that does not fit the model, or settings that no run could have."""
    settings.arguments("unused", seed=0)
    for policy in policies:
        FreezeCallback(policy, cache=settings.cache)
        mask = policy.initial_mask(stack)
        if stack.trainable_parameters(mask) == 0:
            raise RequestError(f"{policy} leaves nothing of this model to train: freeze less.")


def _run_all(
    task: Task,
    todo: Sequence[tuple[Policy, int]],
    settings: StudySettings,
    stack: BlockStack,
    model: ModelRecord,
    folder: StudyFolder,
    progress: ProgressListener,
    reference: str | None,
) -> None:
    if not todo:
        return
    progress.warming_up()
    warm_up(task, settings)
    shape = step_shape(task, settings)
    seen_again = share_seen_again(settings.epochs) if settings.cache else 0.0
    # How a mask will change is not known beforehand, so each run is taken to keep the one that it starts with.
    starts = [Timeline([Change(0, policy.initial_mask(stack), policy.reason)]) for policy, _ in todo]
    remaining = RemainingTime([predicted_ratio(stack, start, 1, shape, seen_again) for start in starts])

    def stepped(done: int, total: int) -> None:
        remaining.stepped(done, total)
        progress.stepped(done, total, remaining.seconds())

    for order, (policy, seed) in enumerate(todo):
        progress.run_begins(str(policy), seed)
        train = partial(
            attempt,
            task,
            policy,
            seed,
            model=model,
            order=order,
            listener=stepped,
            checkpoints=folder.checkpoints(str(policy), seed) if settings.keeps_checkpoints else None,
        )
        full = None if reference is None else folder.find(reference, seed)
        if full is not None and not is_full_fine_tuning(policy, stack):
            run = run_matched(train, settings, policy, seed, stack, shape, folder, full)
        else:
            run = train(settings)
        folder.store(run)
        remaining.run_ended()
        progress.run_ended(run)
