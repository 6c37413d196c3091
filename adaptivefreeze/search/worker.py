"""A worker of a search: runs trials, and deletes models and rows that are no longer needed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import optuna
import torch
from optuna.trial import Trial

from ..comparison.scenarios import expand
from ..errors import RequestError, StudyFailed
from ..policies import is_full_fine_tuning
from .objective import Candidate, Objective, Replicate, TrialFailed, replicates_of
from .options import SearchOptions
from .result import Outcome, choose, outcomes_of
from .space import DepthPlan, QuickPlan, depth_trial, sample_trial, static_policy
from .storage import quiet_optuna
from .trials import (
    BASELINE,
    DEPTH,
    ERROR,
    RATE,
    REPLICATES,
    ROLE,
    SAMPLE,
    SCENARIO,
    PlannedTrial,
    TrialQueue,
    Value,
    record,
)

PRUNING_P = 0.1
_LARGEST_STEP = 2**31 - 1  # the largest step that a database column holds


class Worker:
    """One process's part in a search; samples vary the learning rate `rate`."""

    def __init__(self, study: optuna.Study, objective: Objective, options: SearchOptions, rate: float) -> None:
        self.study, self.objective, self.options = study, objective, options
        self.replicates = replicates_of(options.seeds, options.folds)
        self.plan = DepthPlan(options.depths_of(objective.depth))
        if options.quick:
            self.plan = QuickPlan(
                self.plan.depths,
                options.tolerance,
                lambda depth: objective.cost(self._static(depth)),
                percent=options.greater_is_better,
            )
        self._searched = {self._static(depth).scenario for depth in self.plan.depths}
        self._baselines = [] if options.trials else self._choose_baselines()
        self._rows: dict[int, set[Path]] = {}  # depth -> the row files that its trial added
        self._seen = objective.rows()
        if options.trials:
            self.queue = TrialQueue(
                study,
                self._plan_reference,
                lambda trial: sample_trial(trial, objective.depth, rate, self.replicates),
                options.trials,
            )
        else:
            self.queue = TrialQueue(study, self._plan_depths)

    def work(self) -> None:
        """Run trials until none is left. Raises `KeyboardInterrupt` on Ctrl-C, after failing the current trial."""
        self.queue.work(self._run, self._clean_up)

    def outcomes(self) -> tuple[list[Outcome], list[Outcome]]:
        """Return what was searched, and the baselines. Higher scores are better, whatever the metric."""
        found = outcomes_of(
            self.study.get_trials(deepcopy=False),
            [str(replicate) for replicate in self.replicates],
            self._is_full,
            greater_is_better=self.options.greater_is_better,
        )
        if self.options.trials:
            samples = [outcome for outcome in found if outcome.role == SAMPLE]
            return sorted(samples, key=lambda o: (o.estimate is None, -o.mean if o.estimate else 0.0)), []
        depths = [outcome for outcome in found if outcome.scenario in self._searched and outcome.role == DEPTH]
        names = {candidate.scenario for candidate in self._baselines}
        baselines = [outcome for outcome in found if outcome.scenario in names and outcome.role == BASELINE]
        return sorted(depths, key=lambda outcome: outcome.depth or 0), baselines

    def chosen(self) -> list[Candidate]:
        """Return k*, k_fast and full fine-tuning, to score on the test split; with `pareto` also the whole front.

        Raises:
            StudyFailed: If no candidate has a score.
        """
        outcomes, _ = self.outcomes()
        if not any(outcome.estimate for outcome in outcomes):
            reasons = dict.fromkeys(outcome.error for outcome in outcomes if outcome.error)
            raise StudyFailed(f"No training ended: {next(iter(reasons), 'there was none')}")
        full = [outcome for outcome in outcomes if outcome.full_fine_tuning and outcome.estimate]
        front = [outcome for outcome in outcomes if outcome.on_front] if self.options.pareto else []
        picked = [*choose(outcomes, self.options.tolerance), *full, *front]
        return list(dict.fromkeys(map(self.candidate, picked)))

    def candidate(self, found: Outcome | Trial | optuna.trial.FrozenTrial) -> Candidate:
        """Return what an outcome or a trial is about."""
        if isinstance(found, Outcome):
            return Candidate(self.options.policy(found.scenario), found.learning_rate)
        return Candidate(self.options.policy(found.user_attrs[SCENARIO]), found.user_attrs.get(RATE))

    def tried(self) -> dict[int, float]:
        """Return depth -> mean score of the depths that are done; higher is better."""
        return {o.depth: o.mean for o in self.outcomes()[0] if o.depth is not None and o.estimate is not None}

    def _is_full(self, scenario: str) -> bool:
        try:
            return is_full_fine_tuning(self.options.policy(scenario), self.objective.stack)
        except RequestError:
            return False  # another process was given this policy as an object

    def _static(self, depth: int) -> Candidate:
        return Candidate(static_policy(self.options.side, depth))

    def _choose_baselines(self) -> list[Candidate]:
        """The baselines without those that are depths of the search."""
        given, full = self.options.compared_with, 0 in self.plan.depths
        candidates = [Candidate(policy) for policy in (expand(given, self.objective.depth) if given else ())]
        return [
            candidate
            for candidate in candidates
            if candidate.scenario not in self._searched
            and not (full and is_full_fine_tuning(candidate.policy, self.objective.stack))
        ]

    def _plan_depths(self) -> list[PlannedTrial]:
        side, blocks, replicates = self.options.side, self.objective.depth, self.replicates
        depths = [depth_trial(depth, side, blocks, replicates) for depth in self.plan.wanted(self.tried())]
        return [*depths, *(PlannedTrial(candidate, replicates, BASELINE) for candidate in self._baselines)]

    def _plan_reference(self) -> list[PlannedTrial]:
        """The first trial of a sampled search: full fine-tuning with the settings as they are."""
        return [PlannedTrial(Candidate(static_policy("bottom", 0)), self.replicates, SAMPLE)]

    def _run(self, trial: Trial) -> Value:
        role = trial.user_attrs[ROLE]
        try:
            candidate = self.candidate(trial)
        except RequestError as error:  # queued by a process that was given the policy as an object
            trial.set_user_attr(ERROR, str(error))
            raise TrialFailed(str(error)) from error
        full = is_full_fine_tuning(candidate.policy, self.objective.stack)
        prunable = self.options.prune and role != BASELINE and not full
        # A trial queued by another worker may have other seeds.
        replicates = [Replicate.parse(text) for text in trial.user_attrs[REPLICATES]]
        done = []
        for replicate in replicates:
            try:
                found = self.objective.measure(candidate, replicate, keep=role != BASELINE)
            except TrialFailed as error:
                trial.set_user_attr(ERROR, str(error))
                raise
            done.append(found)
            record(trial, done)
            if self.options.pareto:
                continue  # Optuna has neither intermediate values nor pruning for several objectives
            # The same step for a replicate in every trial pairs the trials for the pruner's test.
            step = replicate.seed * (self.options.folds or 1) + (replicate.fold or 0)
            trial.report(found.score, step % _LARGEST_STEP)
            if prunable and replicate != replicates[-1] and trial.should_prune():
                raise optuna.TrialPruned
        score = fmean(measured.score for measured in done)
        return (score, fmean(measured.seconds for measured in done)) if self.options.pareto else score

    def _clean_up(self) -> None:
        """Delete the models of candidates that can no longer be chosen, and rows that no later depth starts from."""
        outcomes = [outcome for outcome in self.outcomes()[0] if outcome.estimate is not None]
        best = max((outcome.mean for outcome in outcomes if not outcome.pruned), default=0.0)
        for outcome in outcomes:
            # The best score only rises, so what is out of reach stays so. Full fine-tuning is always scored.
            lost = outcome.pruned or outcome.mean < best - self.options.tolerance
            if lost and not outcome.full_fine_tuning:
                self.objective.discard(self.candidate(outcome), self.replicates)
        if not self.options.trials and not self.options.quick:
            self._drop_rows({outcome.depth for outcome in outcomes if outcome.depth is not None})

    def _drop_rows(self, done: set[int]) -> None:
        now = self.objective.rows()
        deepest = max(done, default=0)
        self._rows.setdefault(deepest, set()).update(now - self._seen)
        self._seen = now
        unfinished = set(self.plan.depths) - done
        for depth in [depth for depth in self._rows if depth < deepest]:
            if not any(depth <= other < deepest for other in unfinished):
                for path in self._rows.pop(depth):
                    path.unlink(missing_ok=True)


def pruner_of(options: SearchOptions) -> optuna.pruners.BasePruner:
    """Return the pruner: it stops a trial that is worse than the best one on the same replicates (Wilcoxon test)."""
    if not options.prune or options.pareto:
        return optuna.pruners.NopPruner()
    with quiet_optuna():
        return optuna.pruners.WilcoxonPruner(p_threshold=PRUNING_P)


def sampler_of(options: SearchOptions) -> optuna.samplers.BaseSampler | None:
    """Return the sampler: seeded for a single worker, so that the search is reproducible; several must differ."""
    if not options.trials:
        return None
    alone = options.workers == 1 and options.storage is None
    with quiet_optuna():
        return optuna.samplers.TPESampler(seed=0 if alone else None, multivariate=True, group=True, constant_liar=True)


def run_workers(work: Callable[[], None], count: int) -> None:
    """Run `work` in `count` processes until all have ended.

    With several GPUs each process uses one of them, in turn; the processes share the cores. A process that dies loses
    only its current trial, which another worker runs again. `work` must be picklable.
    """
    context = multiprocessing.get_context("spawn")  # a forked child cannot use CUDA
    gpus = torch.cuda.device_count()
    threads = max(1, torch.get_num_threads() // count)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
    children = [
        context.Process(
            target=_run_child,
            args=(work, threads, names[index % gpus] if gpus > 1 else None),
            name=f"worker {index + 1}",
        )
        for index in range(count)
    ]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join()
    finally:
        for child in children:
            if child.is_alive():
                child.terminate()
                child.join()


def _run_child(work: Callable[[], None], threads: int, gpu: str | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA is not initialized yet in this process
    torch.set_num_threads(threads)
    try:
        work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the parent process reports what is kept
