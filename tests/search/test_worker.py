"""The other ways to search: folds, quick, pruning, samples, a front, several processes."""

import functools
import json
from dataclasses import replace

import optuna
import pytest
from search_process import SETTINGS

from adaptivefreeze import BlockRates, parse_policy
from adaptivefreeze.comparison import ProgressListener, StudyFolder
from adaptivefreeze.data import load_task
from adaptivefreeze.search import SearchOptions, objective, search


def study_of(answer):
    return optuna.load_study(study_name=answer.study, storage=f"sqlite:///{answer.folder}/study.db")


def test_folds_score_every_part_and_their_runs_lie_in_folders_of_their_own(task, tmp_path):
    answer = search(task, SearchOptions(depths=(0, 3), folds=3, baselines=()), settings=SETTINGS, output=tmp_path)
    assert answer.replicates == ("seed 0 fold 1", "seed 0 fold 2", "seed 0 fold 3")
    for fold in range(3):
        folder = StudyFolder(tmp_path / f"fold-{fold + 1}-of-3")
        run = folder.find("bottom-up:3", 0)
        assert run.task.train_examples == 16
        assert run.validation[-1].macro_f1 == answer.outcomes[1].scores[fold]
        assert run.task.fingerprint == json.loads((folder.path / "study.json").read_text())["task"]["fingerprint"]
    assert not (tmp_path / "runs").exists()
    assert set(answer.best.test) == {"macro_f1", "entity_f1", "weighted_f1", "accuracy"}
    # Two folds have two thirds of their examples in common: their rows are found again.
    misses = [StudyFolder(tmp_path / f"fold-{n}-of-3").find("bottom-up:3", 0).cache_stats["misses"] for n in (1, 2, 3)]
    assert misses[0] > 16
    assert misses[1:] == [0, 0]


def test_folds_do_not_mix_with_another_number_of_folds(task, tmp_path):
    search(task, SearchOptions(depths=(0,), folds=3, baselines=()), settings=SETTINGS, output=tmp_path)
    with pytest.raises(objective.RequestError, match="its folds is 3, not 2"):
        search(task, SearchOptions(depths=(0,), folds=2, baselines=()), settings=SETTINGS, output=tmp_path)


class Made(objective.TaskObjective):
    """Scores by a formula: the depth decides, the seed adds noise that all depths share; nothing is trained."""

    curve = staticmethod(lambda depth: 0.9 - 0.1 * depth)

    def measure(self, candidate, replicate, *, keep):
        depth = int(candidate.scenario.partition(":")[2])
        return objective.Measurement(self.curve(depth) + 0.001 * replicate.seed * (1 + depth), 10.0 - depth)

    def test(self, candidate, replicate):
        return {"macro_f1": 0.5}


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr("adaptivefreeze.search.runner.TaskObjective", Made)
    return Made


def test_a_depth_that_is_worse_on_every_seed_is_given_up_and_without_pruning_is_not(made, task, tmp_path):
    options = SearchOptions(depths=(0, 1, 2), seeds=tuple(range(8)), baselines=())
    pruned = search(task, options, settings=SETTINGS, output=tmp_path / "pruned")
    assert [(outcome.pruned, len(outcome.scores)) for outcome in pruned.outcomes] == [(False, 8), (True, 4), (True, 4)]
    assert "1 and 2 were pruned before the last of 8 seeds" in " ".join(pruned.conclusion)
    whole = search(task, replace(options, prune=False), settings=SETTINGS, output=tmp_path / "whole")
    assert [len(outcome.scores) for outcome in whole.outcomes] == [8, 8, 8]


def test_quick_tries_coarse_depths_and_says_what_it_left(made, task, tmp_path, monkeypatch):
    monkeypatch.setattr(made, "curve", staticmethod(lambda depth: 0.9))
    answer = search(task, SearchOptions(quick=True), settings=SETTINGS, output=tmp_path)
    assert [trial.params["depth"] for trial in study_of(answer).trials] == [0, 1, 3, 4]
    assert answer.best.depth == 4
    assert "4 of 5 depths were tried" in answer.conclusion[-1]


def test_quick_goes_on_around_the_best(made, task, tmp_path, monkeypatch):
    monkeypatch.setattr(made, "curve", staticmethod(lambda depth: 0.9 - 0.05 * (depth - 2) ** 2))
    answer = search(task, SearchOptions(quick=True), settings=SETTINGS, output=tmp_path)
    assert [trial.params["depth"] for trial in study_of(answer).trials] == [0, 1, 3, 4, 2]
    assert answer.best.depth == 2


def test_samples_mix_policies_and_learning_rates_and_begin_with_full_fine_tuning(task, tmp_path):
    answer = search(task, SearchOptions(trials=5), settings=SETTINGS, output=tmp_path)
    study = study_of(answer)
    assert len(answer.outcomes) == len(study.trials) == 5
    assert study.trials[0].user_attrs["scenario"] == "bottom-up:0"
    assert {"policy", "learning_rate"} <= set(study.trials[1].params)
    assert answer.best.mean == max(outcome.mean for outcome in answer.outcomes)
    rates = {trial.user_attrs["learning rate"] for trial in study.trials[1:]}
    assert all(SETTINGS.learning_rate / 4 <= rate <= SETTINGS.learning_rate * 4 for rate in rates)
    for trial in study.trials[1:]:
        rate = trial.user_attrs["learning rate"]
        run = StudyFolder(tmp_path / f"lr-{rate:g}").find(trial.user_attrs["scenario"], 0)
        assert run.settings["learning_rate"] == rate
    again = search(task, SearchOptions(trials=5), settings=SETTINGS, output=tmp_path)
    assert (again.ran, again.outcomes) == (0, answer.outcomes)
    assert search(task, SearchOptions(trials=6), settings=SETTINGS, output=tmp_path).ran == 1


def test_a_front_of_score_and_time(task, tmp_path):
    answer = search(task, SearchOptions(trials=4, pareto=True), settings=SETTINGS, output=tmp_path)
    study = study_of(answer)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["macro_f1", "train seconds"]
    front = [outcome for outcome in answer.outcomes if outcome.on_front]
    assert answer.best.mean == max(outcome.mean for outcome in front)
    for outcome in front:
        assert outcome.test
        assert not any(o.mean >= outcome.mean and o.seconds < outcome.seconds for o in answer.outcomes)


def test_local_workers_share_the_trials(task, tiny_folder, tmp_path):
    load = functools.partial(load_task, str(tiny_folder / "tags"), model=str(tiny_folder / "model"), max_length=16)
    options = SearchOptions(depths=(0, 2, 4), baselines=(), workers=2)

    class NothingToDo(ProgressListener):
        def run_begins(self, scenario, seed):
            raise AssertionError("the helpers had left something to do")

    answer = search(task, options, settings=SETTINGS, output=tmp_path, progress=NothingToDo(), load=load)
    assert [outcome.depth for outcome in answer.outcomes] == [0, 2, 4]
    assert len({trial.user_attrs["worker"] for trial in study_of(answer).trials}) <= 2
    assert not answer.failures


def test_rates_are_evolved_beside_full_fine_tuning(task, tmp_path):
    """Trials are those of NSGA-II: after the first generation, children of trials that are done."""
    options = SearchOptions(trials=14, space="rates")
    answer = search(task, options, settings=SETTINGS, output=tmp_path)
    study = study_of(answer)
    assert len(study.trials) == 14
    assert study.trials[0].user_attrs["scenario"] == "bottom-up:0"
    assert all(trial.params.keys() == {f"rate of block {i}" for i in range(4)} for trial in study.trials)
    assert set(study.trials[0].params.values()) == {1.0}
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in study.trials[1:]]
    assert generations == [0] * 8 + [1] * 5
    for trial in study.trials[1:]:
        policy = parse_policy(trial.user_attrs["scenario"])
        if trial.user_attrs["scenario"] != "bottom-up:0":
            assert {name: policy.of_units(4)[name.removeprefix("rate of ")] for name in trial.params} == trial.params
    assert answer.best.mean == max(outcome.mean for outcome in answer.outcomes)
    assert answer.best.learning_rate is None
    assert answer.conclusion[0].startswith(f"The best candidate is {answer.best.scenario}")
    assert [outcome.full_fine_tuning for outcome in answer.outcomes].count(True) == 1
    again = search(task, options, settings=SETTINGS, output=tmp_path)
    assert (again.ran, again.outcomes) == (0, answer.outcomes)
    with pytest.raises(objective.RequestError, match="was made for something else"):
        search(task, SearchOptions(trials=3), settings=SETTINGS, output=tmp_path)


class MadeRates(Made):
    """Scores by a formula: the lower two blocks had better be frozen, and the others learn fast."""

    def measure(self, candidate, replicate, *, keep):
        policy = candidate.policy
        rates = policy.of_units(4) if isinstance(policy, BlockRates) else {f"block {i}": 1.0 for i in range(4)}
        ideal = (0.0, 0.0, 1.0, 1.0)
        return objective.Measurement(1 - sum(abs(rates[f"block {i}"] - r) for i, r in enumerate(ideal)) / 4, 10.0)


def test_evolution_finds_better_rates_than_chance(task, tmp_path, monkeypatch):
    monkeypatch.setattr("adaptivefreeze.search.runner.TaskObjective", MadeRates)
    answer = search(task, SearchOptions(trials=60, space="rates"), settings=SETTINGS, output=tmp_path)
    scores = [trial.value for trial in study_of(answer).trials]
    assert sum(scores[-20:]) / 20 > sum(scores[1:21]) / 20 + 0.1
    assert answer.best.mean >= 0.9
    assert answer.best.scenario.startswith("rates:0")


def test_rates_and_time_together(task, tmp_path, monkeypatch):
    monkeypatch.setattr("adaptivefreeze.search.runner.TaskObjective", MadeRates)
    answer = search(task, SearchOptions(trials=10, space="rates", pareto=True), settings=SETTINGS, output=tmp_path)
    assert len(study_of(answer).directions) == 2
