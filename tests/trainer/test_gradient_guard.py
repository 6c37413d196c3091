"""Parameters that should train get a gradient, or the run stops before its first optimizer step."""

import pytest
import torch
from distributed_cases import checkpoint_by_hand
from training import BLOCKS, losses, make_trainer, moved, tiny_bert, weights
from transformers import TrainerCallback

from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask, RequestError
from adaptivefreeze.cache import session

REENTRANT = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}


def train(folder, model, cache=False, callbacks=(), policy=None, **settings):
    callback = FreezeCallback(policy or BottomUp(2), cache=cache, eval_frozen=True)
    trainer = make_trainer(model, folder, [callback, *callbacks], **{"num_train_epochs": 3, **settings})
    trainer.train()
    return trainer, callback


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_with_the_cache_trains_as_without(tmp_path, reentrant):
    settings = {**REENTRANT, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    start = weights(tiny_bert())
    plain, _ = train(tmp_path, tiny_bert(), **settings)
    cached, callback = train(tmp_path, tiny_bert(), cache=True, **settings)
    assert losses(cached) == losses(plain)
    assert not moved(weights(cached.model), weights(plain.model))
    assert moved(start, weights(cached.model)) == set(start) - callback.stack.frozen(callback.mask)
    assert callback.cache.stats.hit_rate > 0.6


def test_lost_gradients_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "checkpoints_reentrantly", lambda model: False)
    model = tiny_bert()
    before = weights(model)
    with pytest.raises(RequestError, match=r"32 parameters .* get no gradient .* set gradient_checkpointing_kwargs"):
        train(tmp_path, model, cache=True, **REENTRANT)
    assert not moved(before, weights(model))
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("cache", [False, True])
def test_a_model_that_needs_the_gradient_of_its_prefix(tmp_path, cache):
    model = tiny_bert()
    checkpoint_by_hand(model)
    with pytest.raises(RequestError, match="get no gradient while"):
        train(tmp_path, model, cache=cache)
    train(tmp_path, model, policy="top-down:1")


def test_gradients_lost_after_a_move(tmp_path):
    class Moves(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                callback.move(FreezeMask.first(BLOCKS, 1), "by hand", state)

    model = tiny_bert()
    checkpoint_by_hand(model)
    callback = FreezeCallback("nothing")
    trainer = make_trainer(model, tmp_path, [callback, Moves()])
    with pytest.raises(RequestError, match="get no gradient while"):
        trainer.train()
    assert trainer.state.global_step == 3


class _CountsPasses(TrainerCallback):
    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.passes = 0
        model.register_forward_pre_hook(self._count)

    def _count(self, *_):
        self.passes += 1


def test_a_parameter_that_is_never_used_is_legitimate(tmp_path):
    """One additional pass, which leaves no trace."""

    def with_pooler():
        model = tiny_bert()
        model.bert.pooler = torch.nn.Linear(16, 16)
        model.register_buffer("steps", torch.zeros(()))
        model.register_forward_pre_hook(lambda module, args: module.training and module.steps.add_(1) and None)
        return model

    frozen, counts = with_pooler(), _CountsPasses()
    before = weights(frozen)
    trainer, _ = train(tmp_path, frozen, callbacks=[counts], num_train_epochs=1)
    assert counts.passes == 6 + 1
    assert frozen.steps == 6
    by_hand = with_pooler()
    for name, parameter in by_hand.named_parameters():
        parameter.requires_grad_(not name.startswith(("bert.emb", "bert.encoder.layer.0", "bert.encoder.layer.1")))
    for module in (by_hand.bert.embeddings, *by_hand.bert.encoder.layer[:2]):
        module.train = lambda mode=True, _module=module: torch.nn.Module.train(_module, False)
    reference = make_trainer(by_hand, tmp_path, num_train_epochs=1)
    reference.train()
    assert losses(trainer) == losses(reference)
    assert not moved(weights(by_hand), weights(frozen))
    assert "bert.pooler.weight" not in moved(before, weights(frozen))


def test_blocks_left_out_at_random_are_legitimate(tmp_path):
    model = tiny_bert()
    layer = model.bert.encoder.layer[2]
    forward = layer.forward
    first = []

    def dropped(hidden, *args, **kwargs):
        first.append(None)
        if len(first) == 1 or (layer.training and torch.rand(()) < 0.5):
            return hidden
        return forward(hidden, *args, **kwargs)

    layer.forward = dropped
    trainer, _ = train(tmp_path, model, num_train_epochs=1)
    assert trainer.state.global_step == 6


def test_nothing_is_run_again_when_no_gradient_is_missing(tmp_path):
    counts = _CountsPasses()
    trainer, _ = train(tmp_path, tiny_bert(), cache=True, callbacks=[counts], num_train_epochs=1)
    assert counts.passes == 6
    assert "compute_loss" not in vars(trainer)


def test_a_check_that_cannot_be_run_is_reported_once(tmp_path, caplog):
    model = tiny_bert()
    model.bert.pooler = torch.nn.Linear(16, 16)
    model.classifier.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    train(tmp_path, model, num_train_epochs=1)
    assert caplog.text.count("cannot be checked: the optimizer steps during the backward pass.") == 1
