"""Every listed policy in a real Trainer: with and without the cache, and killed in mid-interval and resumed."""

import contextlib

import pytest
from policies.settings import SETTINGS, WRAPPED
from training import losses, make_trainer, moved, tiny_bert, weights
from transformers import TrainerCallback

from adaptivefreeze import Budget, FreezeCallback, parse_policy
from adaptivefreeze.policies import AdaptivePolicy, registered_policies

ONE_EACH = [*(SETTINGS[cls][0] for cls in registered_policies()), Budget(0.8, clock=False)]
ADAPTIVE = [str(p) for p in [*ONE_EACH, WRAPPED[2], WRAPPED[5]] if isinstance(p, AdaptivePolicy)]
STEPS = {"num_train_epochs": 4, "eval_strategy": "steps", "eval_steps": 3, "logging_steps": 1}


class Checked(TrainerCallback):
    """At each step: what the mask freezes gets no gradient, and does not move."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.before = weights(model)
        self.frozen = self.freezing.stack.frozen(self.freezing.mask)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        assert all(p.grad is None for name, p in model.named_parameters() if name in self.frozen)

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        assert not moved(self.before, weights(model)) & self.frozen


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("policy", [str(p) for p in ONE_EACH])
def test_it_runs(tmp_path, policy, cache):
    freezing, checked = FreezeCallback(policy, cache=cache), Checked()
    checked.freezing = freezing
    model = tiny_bert()
    trainer = make_trainer(model, tmp_path, [freezing, checked], **STEPS)
    trainer.train()
    assert all(p.requires_grad for p in model.parameters())
    assert all(loss == loss for loss in losses(trainer))
    assert freezing.timeline[-1].mask == freezing.mask
    assert vars(trainer.accelerator).get("unscale_gradients") is None
    if isinstance(parse_policy(policy), AdaptivePolicy):
        assert len(freezing.timeline) > 1, "it decided nothing in 24 steps"


class Killed(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 12:
            raise KeyboardInterrupt


@pytest.mark.parametrize("policy", ADAPTIVE)
def test_resumed_in_mid_interval_it_ends_as_if_never_stopped(tmp_path, policy):
    """Step 9 lies between the intervals' ends at 8 and 10, and is one that evaluates."""
    settings = {**STEPS, "save_strategy": "steps", "save_steps": 9}
    whole = make_trainer(tiny_bert(), tmp_path / "whole", [FreezeCallback(policy)], **settings)
    whole.train()
    with contextlib.suppress(KeyboardInterrupt):
        make_trainer(tiny_bert(), tmp_path / "cut", [FreezeCallback(policy), Killed()], **settings).train()
    resumed = make_trainer(tiny_bert(1), tmp_path / "cut", [FreezeCallback(policy)], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-9"))
    first, second = (
        next(c for c in trainer.callback_handler.callbacks if isinstance(c, FreezeCallback))
        for trainer in (whole, resumed)
    )
    assert first.timeline.to_json() == second.timeline.to_json()
    assert losses(whole)[9:] == losses(resumed)[9:]
    assert not moved(weights(whole.model), weights(resumed.model))
