"""search_depth: the search with a Trainer of one's own; and the depth in Trainer's own hyper-parameter search."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace

import optuna
import pytest
import torch
from training import Sentences, tiny_bert
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from adaptivefreeze import BottomUp, DepthSearch, FreezeCallback, FreezeMask, Policy, RequestError, search_depth
from adaptivefreeze.errors import StudyFailed


def share_right(evaluated):
    labels = evaluated.label_ids
    right = (evaluated.predictions.argmax(-1) == labels)[labels != -100]
    return {"right": float(right.mean())}


def trainer_of(folder, callbacks=(), train_dataset=None, seed=0, **parts):
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=2,
        learning_rate=1e-2,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return Trainer(
        args=arguments,
        train_dataset=train_dataset or Sentences(),
        eval_dataset=Sentences(8, seed=1),
        compute_metrics=share_right,
        callbacks=list(callbacks),
        **parts,
    )


def factory(folder, made=None, **settings):
    """A factory that notes the seeds it was called with."""

    def make(seed):
        if made is not None:
            made.append(seed)
        return trainer_of(folder, model=tiny_bert(seed), seed=seed, **settings)

    return make


def test_it_finds_a_depth_with_a_metric_of_ones_own(tmp_path):
    found = search_depth(factory(tmp_path), metric="eval_right", seeds=(0, 1), output_dir=tmp_path / "s")
    assert isinstance(found, DepthSearch)
    assert [outcome.depth for outcome in found.outcomes] == [0, 1, 2, 3, 4]
    assert all(len(outcome.scores) == 2 and outcome.seconds > 0 for outcome in found.outcomes)
    assert found.best.mean == max(outcome.mean for outcome in found.outcomes)
    assert not (tmp_path / "s" / "rows").exists()
    study = optuna.load_study(study_name=found.study, storage=f"sqlite:///{tmp_path}/s/study.db")
    assert [trial.params["depth"] for trial in study.trials] == [0, 1, 2, 3, 4]


def test_a_minimized_metric_has_its_lowest_value_chosen_and_reported(tmp_path):
    found = search_depth(
        factory(tmp_path),
        metric="loss",
        greater_is_better=False,
        seeds=(0, 1),
        tolerance=0.05,
        output_dir=tmp_path / "s",
    )
    means = {outcome.depth: outcome.mean for outcome in found.outcomes}
    assert min(means.values()) > 0
    assert found.best.mean == min(means.values())
    assert found.fast.depth == max(depth for depth, mean in means.items() if mean <= found.best.mean + 0.05)
    assert all(outcome.estimate.low <= outcome.mean <= outcome.estimate.high for outcome in found.outcomes)
    likely = max(found.outcomes, key=lambda outcome: outcome.estimate.best)
    assert likely.mean <= min(means.values()) + 0.05
    assert f"({found.best.mean:.4g}" in found.conclusion[0]
    assert "within 0.05 of it" in found.conclusion[0]
    study = optuna.load_study(study_name=found.study, storage=f"sqlite:///{tmp_path}/s/study.db")
    assert study.direction.name == "MINIMIZE"
    assert study.best_value == found.best.mean
    read = DepthSearch.from_json(json.loads((tmp_path / "s" / "search.json").read_text()))
    assert read == replace(found, folder=None, ran=0)


def test_a_trainer_with_model_init_scores_as_a_factory_and_is_left_as_it_was(tmp_path):
    shared = trainer_of(tmp_path, model_init=lambda: tiny_bert(torch.initial_seed()), seed=7)
    callbacks = list(shared.callback_handler.callbacks)

    def make(seed):
        return trainer_of(tmp_path, model_init=lambda: tiny_bert(torch.initial_seed()), seed=seed)

    options = {"metric": "right", "depths": (0, 3), "seeds": (0, 1)}
    reused = search_depth(shared, **options, output_dir=tmp_path / "s")
    built = search_depth(make, **options)
    assert [outcome.scores for outcome in reused.outcomes] == [outcome.scores for outcome in built.outcomes]
    assert len({score for outcome in reused.outcomes for score in outcome.scores}) > 1
    assert shared.callback_handler.callbacks == callbacks
    assert (shared.args.seed, shared.args.data_seed) == (7, None)
    again = search_depth(shared, **options, output_dir=tmp_path / "s")
    assert (again.ran, again.outcomes) == (0, reused.outcomes)


def test_a_trainer_without_model_init_is_refused(tmp_path):
    with pytest.raises(RequestError, match="has no model_init"):
        search_depth(factory(tmp_path)(0), metric="right")


@dataclass(frozen=True)
class LastBlocks(Policy):
    """A policy that is not registered."""

    name = "last-blocks"
    count: int

    def initial_mask(self, stack):
        return FreezeMask(stack.depth, blocks=range(stack.depth - self.count, stack.depth))


def test_a_policy_object_without_a_spec_is_a_baseline(tmp_path):
    options = {"metric": "right", "depths": (0, 4), "output_dir": tmp_path / "s"}
    found = search_depth(factory(tmp_path), **options, baselines=(LastBlocks(2), "nothing"))
    assert [outcome.scenario for outcome in found.baselines] == [str(LastBlocks(2))]
    assert found.baselines[0].scores
    assert "The best baseline is last-blocks" in found.conclusion[-1]
    assert search_depth(factory(tmp_path), **options).ran == 0  # the object is not given now, nor needed


def test_a_score_is_that_of_a_trainer_frozen_by_hand(tmp_path):
    found = search_depth(factory(tmp_path), metric="right", depths=(0, 3), cache=False)
    torch.manual_seed(0)
    trainer = factory(tmp_path)(0)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(FreezeCallback(BottomUp(3)))
    trainer.train()
    assert found.outcomes[1].scores == (trainer.evaluate()["eval_right"],)


def test_the_same_again_trains_nothing(tmp_path):
    made = []
    first = search_depth(factory(tmp_path, made), metric="right", depths=(0, 4), output_dir=tmp_path / "s")
    assert len(made) == 1 + 2  # one to look at, one a training
    again = search_depth(factory(tmp_path, made), metric="right", depths=(0, 4), output_dir=tmp_path / "s")
    assert len(made) == 3 + 1
    assert again.outcomes == first.outcomes
    assert (first.ran, again.ran) == (2, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "f1"}, "metric f1 is not reported; the trainer reports right"),
        ({"metric": "loss"}, "loss is minimized; pass greater_is_better=False"),
        ({"depths": (5,)}, "depths 5 is out of range"),
        ({"side": "sideways"}, "side sideways is unknown"),
        ({"seeds": ()}, "pass integers"),
    ],
)
def test_a_wrong_request_leaves_nothing_behind(tmp_path, change, words):
    with pytest.raises(RequestError, match=words):
        search_depth(factory(tmp_path / "t"), **{"metric": "right", "output_dir": tmp_path / "s", **change})
    assert not (tmp_path / "s").exists()


def test_a_trainer_that_freezes_already_is_refused(tmp_path):
    make = factory(tmp_path, callbacks=[FreezeCallback(BottomUp(1))])
    with pytest.raises(RequestError, match="has a FreezeCallback already"):
        search_depth(make, metric="right")


def test_another_training_under_the_same_name_is_refused(tmp_path):
    search_depth(factory(tmp_path), metric="right", depths=(0,), output_dir=tmp_path / "s")
    make = factory(tmp_path, train_dataset=Sentences(16))
    with pytest.raises(RequestError, match="was made for something else"):
        search_depth(make, metric="right", depths=(0,), output_dir=tmp_path / "s")


def test_a_training_that_breaks_is_left_out(tmp_path):
    class Broken(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            raise RuntimeError("no such luck")

    with pytest.raises(StudyFailed, match="no such luck"):
        search_depth(factory(tmp_path, callbacks=[Broken()]), metric="right", depths=(0,))


def test_the_depth_inside_trainers_own_search(tmp_path):
    """As the README says it."""
    freezing = FreezeCallback(BottomUp(0), cache=True)
    seen = []

    def hp_space(trial):
        freezing.policy = BottomUp(trial.suggest_int("depth", 0, 4))
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)}

    class Noting(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(sum(freezing.mask.blocks) if freezing.mask.blocks else -1)

    trainer = trainer_of(tmp_path, callbacks=[freezing, Noting()], model_init=lambda trial: tiny_bert())
    best = trainer.hyperparameter_search(
        hp_space=hp_space,
        backend="optuna",
        n_trials=3,
        direction="maximize",
        compute_objective=lambda metrics: metrics["eval_right"],
        sampler=optuna.samplers.GridSampler({"depth": [0, 2, 4], "learning_rate": [1e-3]}),
    )
    assert best.hyperparameters["depth"] in (0, 2, 4)
    assert set(seen) == {-1, 0 + 1, 0 + 1 + 2 + 3}


def test_importing_the_package_imports_no_search():
    lines = ["import adaptivefreeze, sys", "assert 'optuna' not in sys.modules"]
    lines += ["adaptivefreeze.search_depth", "assert 'optuna' in sys.modules"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
