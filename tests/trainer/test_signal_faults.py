"""Policies in a real Trainer whose evaluations or gradients fail: the mask stays, and the reason is recorded."""

import logging
import math

import pytest
import torch
from training import Sentences, make_trainer, tiny_bert
from transformers import TrainerCallback

from adaptivefreeze import FreezeCallback, ValidationDriven

# 24 sentences in batches of 4, two epochs: 12 steps.
NEVER = "decides after evaluations, but none comes before the last of 12 steps"


def trained(tmp_path, policy, *callbacks, data=None, metrics=None, **settings):
    callback = FreezeCallback(policy)
    arguments = {"eval_strategy": "steps", "eval_steps": 2, **settings}
    trainer = make_trainer(tiny_bert(), tmp_path, [callback, *callbacks], **arguments)
    trainer.eval_dataset = data or trainer.eval_dataset
    trainer.compute_metrics = metrics
    for user in callbacks:
        user.trainer = trainer
    trainer.train()
    return list(callback.timeline)


class Metric:
    """Reports the next of `values` as `f1` at each evaluation; nothing for None."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, prediction):
        value = self.values.pop(0)
        return {} if value is None else {"f1": value}


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_delay": 100},
        {"eval_delay": 11},  # an evaluation after the last step is too late
        {"eval_steps": 500},
        {"eval_strategy": "epoch", "eval_delay": 3},
        {"eval_strategy": "epoch", "num_train_epochs": 1, "gradient_accumulation_steps": 1, "max_steps": 12},
    ],
    ids=str,
)
def test_an_evaluation_that_never_comes_is_logged_once(tmp_path, caplog, settings):
    if "max_steps" in settings:
        settings = {**settings, "train_dataset": Sentences(48)}
    with caplog.at_level(logging.WARNING):
        timeline = trained(tmp_path, "validation", **settings)
    assert [change.reason for change in timeline if change.step < 12] == ["start"]
    assert sum(NEVER in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("settings", "first"),
    [({"eval_delay": 7}, 8), ({"eval_strategy": "epoch"}, 6), ({"eval_steps": 0.25}, 3), ({}, 2)],
    ids=str,
)
def test_the_first_evaluation_after_a_delay_decides(tmp_path, caplog, settings, first):
    with caplog.at_level(logging.WARNING):
        timeline = trained(tmp_path, ValidationDriven(threshold=100), **settings)
    assert timeline[1].step == first
    assert "decides after evaluations" not in caplog.text


def test_a_metric_that_is_nan_or_disappears_holds_the_mask_once(tmp_path):
    metric = Metric(math.nan, 0.5, None, None, 0.6, 0.7)
    timeline = trained(tmp_path, ValidationDriven("f1", cooldown=0), metrics=metric)
    assert [(change.step, change.mask.leading_blocks, change.reason.partition(" (")[0]) for change in timeline] == [
        (0, 0, "start"),
        (2, 0, "f1 nan is not finite: no change"),
        (4, 1, "f1 0.5 holds"),
        (6, 1, "f1 is not reported: no change"),  # not recorded again at step 8
        (10, 2, "f1 0.6 holds"),
        (12, 3, "f1 0.7 holds"),
    ]


class EvaluatesByHand(TrainerCallback):
    """Evaluates a set of its own in mid-training, as users do."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self.trainer.evaluate(Sentences(4, seed=5))


@pytest.mark.parametrize("callbacks", [(), (EvaluatesByHand(),)], ids=["alone", "and by hand"])
def test_several_evaluation_sets_make_one_decision(tmp_path, callbacks):
    sets = {"a": Sentences(4, seed=1), "b": Sentences(4, seed=2)}
    timeline = trained(tmp_path, ValidationDriven("b_loss", threshold=100, cooldown=0), *callbacks, data=sets)
    assert [(change.step, change.mask.leading_blocks) for change in timeline] == [
        (0, 0),
        *((2 * i, i) for i in range(1, 5)),
    ]


class NaNGradient(TrainerCallback):
    """Makes one gradient NaN in step 6, and zero again before the optimizer sees it."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weight = model.bert.encoder.layer[2].output.dense.weight
        self.step = state.global_step
        if state.global_step == 0:
            self.weight.register_hook(lambda g: torch.full_like(g, math.nan) if self.step == 5 else g)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0)


@pytest.mark.parametrize(
    "policy",
    [
        "autofreeze:intervals=3",
        "autorgn:intervals=3",
        "grades:alpha=0.17,every=2,tau=0.9",
        "budget:0.8,clock=false,shorten=false",
    ],
)
def test_a_nan_gradient_in_mid_training_holds_the_mask_once(tmp_path, policy):
    timeline = trained(tmp_path, policy, NaNGradient(), eval_strategy="no", max_grad_norm=0)
    held = [change for change in timeline if "not finite: no change" in change.reason]
    assert [change.step for change in held] == [6]
    assert held[0].mask == timeline[timeline.index(held[0]) - 1].mask
    later = [change for change in timeline if change.step > 6]
    assert later
    assert "nan" not in " ".join(change.reason for change in later)
