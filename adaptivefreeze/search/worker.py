"""Worker: runs trials of a search, reports each score as it comes, and clears away what can no longer be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, Trial

from ..comparison.scenarios import UNFROZEN, expand
from ..errors import StudyFailed
from .housekeeping import Housekeeping
from .objective import Bench, Candidate, TaskBench, TrialFailed
from .options import SearchOptions
from .plan import Exhaustive, Plan, Quick
from .result import BASELINE, DEPTH, MEMORY, SAMPLE, SCORES, SECONDS, SPARED, Outcome, choose, outcomes_of
from .space import depth_order, reference_order, sample, static
from .trials import ERROR, ROLE, UNITS, Order, Queue, Value, candidate_of, quiet
from .units import Unit, units_of

P_HOPELESS = 0.1
_LARGEST_STEP = 2**31 - 1  # what a database column of steps holds


class Worker:
    """One process's share of a search, on `bench`, in `study`; `rate` is the learning rate that samples vary."""

    def __init__(self, study: optuna.Study, bench: Bench, options: SearchOptions, rate: float = 5e-5) -> None:
        self.study, self.bench, self.options = study, bench, options
        self.units = units_of(options.seeds, options.folds)
        self.plan = plan_of(options, bench)
        self._beside = [] if options.trials else _baselines(options, bench.depth)
        self._keeping = Housekeeping(bench, self.plan, options.tolerance) if isinstance(bench, TaskBench) else None
        if options.trials:
            self.queue = Queue(
                study, self._samples, lambda trial: sample(trial, bench.depth, rate, self.units), options.trials
            )
        else:
            self.queue = Queue(study, self._grid)

    def work(self) -> None:
        """Run trials until none is left. Raises `KeyboardInterrupt` on Ctrl-C, with the trial in progress failed."""
        self.queue.work(self._run, self._tidy)

    def outcomes(self) -> tuple[list[Outcome], list[Outcome]]:
        """What was searched, and the baselines beside it."""
        found = outcomes_of(self.study.get_trials(deepcopy=False), self.units)
        if self.options.trials:
            samples = [outcome for outcome in found if outcome.role == SAMPLE]
            return sorted(samples, key=lambda o: -o.mean if o.certainty else 0.0), []
        wanted = {str(static(self.options.direction, depth)) for depth in self.options.depths_of(self.bench.depth)}
        depths = [outcome for outcome in found if outcome.scenario in wanted and outcome.role == DEPTH]
        names = {candidate.scenario for candidate in self._beside}
        beside = [outcome for outcome in found if outcome.scenario in names and outcome.role == BASELINE]
        return sorted(depths, key=lambda outcome: outcome.depth or 0), beside

    def chosen(self) -> list[Candidate]:
        """What the test split is for: k*, k_fast, full fine-tuning and, of a search for two things, the whole front.

        Raises `StudyFailed` when nothing has a score.
        """
        outcomes, _ = self.outcomes()
        if not any(outcome.certainty for outcome in outcomes):
            reasons = dict.fromkeys(outcome.error for outcome in outcomes if outcome.error)
            raise StudyFailed(f"No training ended: {next(iter(reasons), 'there was none')}")
        full = [outcome for outcome in outcomes if outcome.scenario in UNFROZEN and outcome.certainty]
        front = [outcome for outcome in outcomes if outcome.on_front] if self.options.pareto else []
        picked = [*choose(outcomes, self.options.tolerance), *full, *front]
        return list(dict.fromkeys(Candidate(outcome.scenario, outcome.learning_rate) for outcome in picked))

    def tried(self) -> dict[int, float]:
        """Depth -> mean score, of the depths that are done."""
        return {o.depth: o.mean for o in self.outcomes()[0] if o.depth is not None and o.certainty is not None}

    def step(self, unit: Unit) -> int:
        """The step under which a unit's score is reported: the same in every trial, so that trials are paired."""
        folds = self.options.folds or 1
        return (unit.seed * folds + (unit.fold or 0)) % _LARGEST_STEP

    def _tidy(self) -> None:
        if self._keeping is not None:
            self._keeping.tidy(self.outcomes()[0], self.units, exhaustive=not self.options.trials)

    def _grid(self, trials: Sequence[FrozenTrial]) -> list[Order]:
        depths = self.plan.wanted(self.tried())
        orders = [depth_order(depth, self.options.direction, self.bench.depth, self.units) for depth in depths]
        return [*orders, *(Order(candidate, self.units, BASELINE) for candidate in self._beside)]

    def _samples(self, trials: Sequence[FrozenTrial]) -> list[Order]:
        return [reference_order(self.bench.depth, self.units)]

    def _run(self, trial: Trial) -> Value:
        candidate, role = candidate_of(trial), trial.user_attrs[ROLE]
        prunable = self.options.prune and role != BASELINE and candidate.scenario not in UNFROZEN
        scores: list[float] = []
        seconds: list[float] = []
        spared: list[float] = []
        memory: list[int | None] = []
        units = [Unit.named(name) for name in trial.user_attrs[UNITS]]  # a trial in the queue may be of other seeds
        for unit in units:
            try:
                found = self.bench.measure(candidate, unit, keep=role != BASELINE)
            except TrialFailed as error:
                trial.set_user_attr(ERROR, str(error))
                raise
            scores.append(found.score)
            seconds.append(found.seconds)
            spared.append(found.spared)
            memory.append(found.memory)
            for name, values in ((SCORES, scores), (SECONDS, seconds), (SPARED, spared), (MEMORY, memory)):
                trial.set_user_attr(name, values)
            if self.options.pareto:
                continue  # Optuna has neither intermediate values nor pruning for several objectives
            trial.report(found.score, self.step(unit))
            if prunable and unit != units[-1] and trial.should_prune():
                raise optuna.TrialPruned
        return (fmean(scores), fmean(seconds)) if self.options.pareto else fmean(scores)


def plan_of(options: SearchOptions, bench: Bench) -> Plan:
    """Which depths are tried, and in which order."""
    depths = options.depths_of(bench.depth)
    if not options.quick:
        return Exhaustive(depths)
    return Quick(depths, options.tolerance, lambda d: bench.cost(Candidate(str(static(options.direction, d)))))


def pruner_of(options: SearchOptions) -> optuna.pruners.BasePruner:
    """Gives a trial up when it is worse than the best one on the same units, with p < 0.1 by Wilcoxon's test."""
    if not options.prune or options.pareto:
        return optuna.pruners.NopPruner()
    with quiet():
        return optuna.pruners.WilcoxonPruner(p_threshold=P_HOPELESS)


def sampler_of(options: SearchOptions) -> optuna.samplers.BaseSampler | None:
    """Chooses samples; a lone worker's choices can be made again, those of several have to differ."""
    if not options.trials:
        return None
    alone = options.workers == 1 and options.storage is None
    with quiet():
        return optuna.samplers.TPESampler(seed=0 if alone else None, multivariate=True, group=True, constant_liar=True)


def _baselines(options: SearchOptions, blocks: int) -> list[Candidate]:
    """The scenarios beside the depths, without those that are depths of the search themselves."""
    if not options.compared_with:
        return []
    searched = {str(static(options.direction, depth)) for depth in options.depths_of(blocks)}
    if searched & UNFROZEN:
        searched |= UNFROZEN
    return [Candidate(str(p)) for p in expand(options.compared_with, blocks) if str(p) not in searched]
