"""A worker of a search: runs trials, and deletes models and rows that are no longer needed."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import torch
from optuna.pruners import WilcoxonPruner
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import Trial

from ..errors import RequestError, StudyFailed
from ..policies import BottomUp, Policy, is_full_fine_tuning
from .objective import Objective
from .result import Outcome, choose, outcomes_of
from .space import SIDES, DepthPlan, QuickPlan, SearchOptions, full_rates, sample, sample_rates, static_policy
from .storage import open_study
from .trials import (
    MEMORY,
    RATE,
    REPLICATES,
    ROLE,
    SAVED,
    SCENARIO,
    SCORES,
    SECONDS,
    Candidate,
    Measurement,
    PlannedTrial,
    Replicate,
    Role,
    TrialFailed,
    TrialQueue,
    Value,
    replicates_of,
)

_POPULATION = 8  # of the evolutionary sampler: the first eight trials of a search are random
_LARGEST_STEP = 2**31 - 1  # the largest step that a database column holds


class Worker:
    """One process's part in a search, in the study `name`. Raises `RequestError` as `open_study` does."""

    def __init__(self, objective: Objective, storage: BaseStorage, name: str, options: SearchOptions) -> None:
        self.objective, self.options = objective, options
        directions = {options.metric: StudyDirection.MAXIMIZE if options.greater_is_better else StudyDirection.MINIMIZE}
        if options.pareto:
            directions["train seconds"] = StudyDirection.MINIMIZE
        sampler = _sampler(options) if options.trials else None
        identity, pruner = objective.identity(options), WilcoxonPruner(p_threshold=0.1)
        self.study = open_study(storage, name, identity, directions, sampler=sampler, pruner=pruner)
        self.replicates = replicates_of(options.seeds, options.folds)
        depths = options.depths_of(objective.depth)
        self._depths = {str(self._static(depth)): depth for depth in depths}
        self.plan = DepthPlan(depths)
        if options.quick:
            costs = {depth: objective.cost(self._static(depth)) for depth in depths}
            self.plan = QuickPlan(depths, options.tolerance, costs.__getitem__, percent=options.greater_is_better)
        self._baselines = [] if options.trials else self._choose_baselines()
        self._rows: dict[Path, float] = dict.fromkeys(objective.rows(), math.inf)  # file of rows -> depth
        self.queue = TrialQueue(self.study, self._plan, self._sample if options.trials else None, options.trials or 0)

    def work(self) -> None:
        """Run trials until none is left. Raises `KeyboardInterrupt` on Ctrl-C, after failing the current trial."""
        self.queue.work(self._run, self._clean_up)

    def outcomes(self) -> tuple[list[Outcome], list[Outcome]]:
        """Return what was searched, and the baselines. Higher scores are better, whatever the metric."""
        trials = self.study.get_trials(deepcopy=False)
        found = outcomes_of(trials, self.replicates, self._is_full, greater_is_better=self.options.greater_is_better)
        if self.options.trials:
            samples = [outcome for outcome in found if outcome.role == "sample"]
            return sorted(samples, key=lambda outcome: -outcome.mean if outcome.estimate else math.inf), []
        depths = self._depths
        searched = [replace(o, depth=depths[o.scenario]) for o in found if o.role == "depth" and o.scenario in depths]
        names = {*map(str, self._baselines)}
        baselines = [outcome for outcome in found if outcome.role == "baseline" and outcome.scenario in names]
        return sorted(searched, key=lambda outcome: depths[outcome.scenario]), baselines

    def chosen(self) -> list[Candidate]:
        """Return k*, k_fast, full fine-tuning and the front if `pareto`. Raises `StudyFailed` if none has a score."""
        outcomes, _ = self.outcomes()
        if not any(outcome.estimate for outcome in outcomes):
            reasons = [outcome.error for outcome in outcomes if outcome.error]
            raise StudyFailed(f"No training ended: {next(iter(reasons), 'there was none')}")
        full = [outcome for outcome in outcomes if outcome.full_fine_tuning]
        front = [outcome for outcome in outcomes if outcome.on_front] if self.options.pareto else []
        picked = [*choose(outcomes, self.options.tolerance), *full, *front]
        return list(dict.fromkeys(map(self.candidate, picked)))

    def candidate(self, found: Outcome | Trial) -> Candidate:
        """Return what an outcome or a trial is about."""
        if isinstance(found, Outcome):
            return Candidate(self.options.policy(found.scenario), found.learning_rate)
        return Candidate(self.options.policy(found.user_attrs[SCENARIO]), found.user_attrs.get(RATE))

    def tried(self) -> dict[int, float]:
        """Return depth -> mean score of the depths that are done; higher is better."""
        return {self._depths[o.scenario]: o.mean for o in self.outcomes()[0] if o.estimate is not None}

    def _is_full(self, scenario: str) -> bool:
        try:
            return is_full_fine_tuning(self.options.policy(scenario), self.objective.stack)
        except RequestError:
            return False  # another process was given this policy as an object

    def _static(self, depth: int) -> Policy:
        return static_policy(self.options.side, depth)

    def _choose_baselines(self) -> list[Policy]:
        """The baselines without those that are depths of the search."""
        given = [self.options.policy(str(baseline)) for baseline in self.options.baselines or ()]
        full = 0 in self.plan.depths
        return [p for p in given if str(p) not in self._depths and not (full and self._is_full(str(p)))]

    def _trial(self, role: Role, policy: Policy, rate: float | None = None, **params: Any) -> PlannedTrial:
        return PlannedTrial(Candidate(policy, rate), self.replicates, role, params)

    def _plan(self) -> list[PlannedTrial]:
        """The trials wanted so far; of a sampled search only full fine-tuning with the settings as they are."""
        if self.options.trials:
            rates = full_rates(self.objective.depth) if self.options.space == "rates" else {}
            return [self._trial("sample", BottomUp(0), **rates)]
        wanted, side = self.plan.wanted(self.tried()), self.options.side
        depths = [self._trial("depth", self._static(depth), depth=depth, side=side) for depth in wanted]
        return [*depths, *(self._trial("baseline", policy) for policy in self._baselines)]

    def _sample(self, trial: Trial) -> PlannedTrial:
        if self.options.space == "rates":
            return self._trial("sample", sample_rates(trial, self.objective.depth))
        return self._trial("sample", *sample(trial, self.objective.depth, self.objective.learning_rate))

    def _run(self, trial: Trial) -> Value:
        role = trial.user_attrs[ROLE]
        try:
            candidate = self.candidate(trial)
        except RequestError as error:  # queued by a process that was given the policy as an object
            raise TrialFailed(str(error)) from error
        if role == "depth":  # for what the study shows of the trial
            trial.suggest_int("depth", 0, self.objective.depth)
            trial.suggest_categorical("side", SIDES)
        elif role == "sample" and self.options.space == "rates":  # else the trials have no parameters in common
            sample_rates(trial, self.objective.depth)
        prunable = self.options.prune and role != "baseline" and not self._is_full(candidate.scenario)
        # A trial queued by another worker may have other seeds.
        replicates = [Replicate.parse(text) for text in trial.user_attrs[REPLICATES]]
        done: list[Measurement] = []
        for replicate in replicates:
            done.append(self.objective.measure(candidate, replicate, keep=role != "baseline"))
            for name, part in ((SCORES, "score"), (SECONDS, "seconds"), (SAVED, "saved"), (MEMORY, "memory")):
                trial.set_user_attr(name, [getattr(measured, part) for measured in done])
            if self.options.pareto:
                continue  # Optuna has neither intermediate values nor pruning for several objectives
            # The same step for a replicate in every trial pairs the trials for the pruner's test.
            step = replicate.seed * (self.options.folds or 1) + (replicate.fold or 0)
            trial.report(done[-1].score, step % _LARGEST_STEP)
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
        if self.options.trials or self.options.quick:
            return
        done = {self._depths[outcome.scenario] for outcome in outcomes}
        deepest, unfinished = max(done, default=0), set(self.plan.depths) - done
        for path in self.objective.rows():
            self._rows.setdefault(path, deepest)
        for path, depth in self._rows.items():
            if depth < deepest and not any(depth <= other < deepest for other in unfinished):
                path.unlink(missing_ok=True)


def _sampler(options: SearchOptions) -> BaseSampler:
    # Seeded for a single worker, so that the search is reproducible; several must differ.
    seed = 0 if options.workers == 1 and options.storage is None else None
    if options.space == "rates":
        return NSGAIISampler(population_size=_POPULATION, seed=seed)
    return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def run_workers(work: Callable[[], None], count: int) -> None:
    """Run `work`, which must be picklable, in `count` processes until all have ended.

    With several GPUs each process uses one of them, in turn; the processes share the cores. A process that dies loses
    only its current trial, which another worker runs again.
    """
    context = multiprocessing.get_context("spawn")  # a forked child cannot use CUDA
    gpus, threads = torch.cuda.device_count(), max(1, torch.get_num_threads() // count)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
    assigned = [names[index % gpus] if gpus > 1 else None for index in range(count)]
    children = [context.Process(target=_run_child, args=(work, threads, gpu)) for gpu in assigned]
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
