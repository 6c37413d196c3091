"""freeze: in a plain loop a policy decides as in a Trainer, and what cannot be measured is refused."""

import logging
from dataclasses import dataclass

import pytest
import torch
from training import BLOCKS, losses, make_trainer, moved, tiny_bert, weights
from transformers import Trainer, get_linear_schedule_with_warmup

from adaptivefreeze import AutoFreeze, BottomUp, FreezeCallback, FreezeMask, RequestError, ValidationDriven, freeze
from adaptivefreeze.policies import AdaptivePolicy, Decision, DecisionPoints

STEPS = 12


def without_dropout():
    model = tiny_bert()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


class Recording(Trainer):
    """Keeps the batches in the order in which they were trained on."""

    def training_step(self, model, inputs, *args, **kwargs):
        self.__dict__.setdefault("batches", []).append({name: value.clone() for name, value in inputs.items()})
        return super().training_step(model, inputs, *args, **kwargs)


@dataclass
class Signals(AdaptivePolicy):
    """Asks for several signals, keeps them, and freezes one more block at each decision."""

    name = "signals"

    def __post_init__(self):
        self.seen = []

    @property
    def needs(self):
        return frozenset({"gradients", "gradient_changes", "weight_changes", "importance", "similarities", "costs"})

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints({4, 5, 9})

    def update(self, signals):
        self.seen.append(signals)
        return Decision(FreezeMask.first(BLOCKS, len(self.seen)), "more", {"head": 0.5})


def in_a_loop(model, policy, batches, evaluate=None, **arguments):
    """The training of `make_trainer` by hand: the run, and the number of steps."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    arguments = {"total_steps": STEPS, "steps_per_epoch": STEPS // 2, "scheduler": scheduler, **arguments}
    with freeze(model, policy, optimizer=optimizer, **arguments) as run:
        for steps, batch in enumerate(batches, 1):
            model(**batch).loss.backward()
            run.gradients_ready()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if run.step(evaluate(steps) if evaluate else None):
                break
    return run, steps


@pytest.mark.parametrize("policy", [AutoFreeze(80, intervals=3), Signals()], ids=str)
def test_a_policy_decides_as_in_a_trainer(tmp_path, policy):
    callback, model = FreezeCallback(policy), without_dropout()
    settings = {"weight_decay": 0.0, "max_grad_norm": 0.5, "optim": "adamw_torch"}
    trainer = make_trainer(model, tmp_path, [callback], cls=Recording, **settings)
    trainer.train()
    in_trainer, policy.seen = getattr(policy, "seen", []), []
    other = without_dropout()
    run, steps = in_a_loop(other, policy, trainer.batches)
    assert steps == len(losses(trainer)) == STEPS
    assert len(run.timeline) > 2
    assert run.timeline.to_json() == callback.timeline.to_json()
    assert policy.seen == in_trainer
    assert not moved(weights(model), weights(other))
    assert all(p.requires_grad for p in other.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    trainer = make_trainer(without_dropout(), tmp_path_factory.mktemp("batches"), cls=Recording)
    trainer.train()
    return trainer.batches


def test_it_decides_after_evaluations(batches):
    policy = ValidationDriven("f1", cooldown=0, step=1)
    run, _ = in_a_loop(tiny_bert(), policy, batches, lambda step: {"eval_f1": step / 10} if step % 3 == 0 else None)
    assert [change.step for change in run.timeline] == [0, 3, 6, 9, 12]


def test_no_metrics_for_a_policy_that_decides_after_evaluations_is_a_warning(batches, caplog):
    with caplog.at_level(logging.WARNING):
        in_a_loop(tiny_bert(), ValidationDriven("f1"), batches)
    assert "decides after evaluations, but step() received no metrics" in caplog.text


@dataclass
class Stops(AdaptivePolicy):
    """Ends the run by decision at step 5, or by its schedule."""

    name = "stops"
    pace: float | None = None

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints({5})

    def update(self, signals):
        return Decision(signals.mask, "done", stop=self.pace is None, pace=self.pace)


@pytest.mark.parametrize(("pace", "steps"), [(None, 5), (2.0, 9)])
def test_a_policy_can_end_the_run(batches, pace, steps):
    assert in_a_loop(tiny_bert(), Stops(pace), batches)[1] == steps


def test_a_static_policy_needs_no_step(batches):
    model = tiny_bert()
    before = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with freeze(model, BottomUp(2), optimizer=optimizer) as run:
        for batch in batches[:2]:
            model(**batch).loss.backward()
            optimizer.step()
        run.apply(FreezeMask.first(BLOCKS, 3), "deeper")
        frozen = run.stack.frozen(FreezeMask.first(BLOCKS, 2))
    assert moved(before, weights(model)) == set(before) - frozen
    assert run.timeline[-1].reason == "deeper"


def test_release_leaves_the_mask_in_force():
    model = tiny_bert()
    freeze(model, BottomUp(2)).release()
    assert not model.bert.encoder.layer[1].output.dense.weight.requires_grad
    freeze(model, BottomUp(1)).restore()


@pytest.mark.parametrize(
    ("policy", "arguments", "sentence"),
    [
        ("autofreeze", {}, "autofreeze decides during training: pass total_steps and steps_per_epoch to freeze"),
        ("linear", {"total_steps": 9, "optimizer": None}, "pass optimizer and steps_per_epoch to freeze"),
        ("budget:0.5", {"total_steps": 9, "steps_per_epoch": 3}, "does not need 'timed costs'"),
    ],
)
def test_what_a_policy_needs_is_asked_for(policy, arguments, sentence):
    model = tiny_bert()
    arguments = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), **arguments}
    with pytest.raises(RequestError, match=sentence):
        freeze(model, policy, **arguments)
    assert all(p.requires_grad for p in model.parameters())


def test_a_forgotten_call_is_an_error(batches):
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = {"optimizer": optimizer, "total_steps": 12, "steps_per_epoch": 6}
    with freeze(model, "autofreeze", **arguments):
        model(**batches[0]).loss.backward()
        with pytest.raises(RequestError, match=r"call gradients_ready\(\) after backward\(\)"):
            optimizer.step()
    with freeze(model, "linear", **arguments):
        model(**batches[0]).loss.backward()
        optimizer.step()
        with pytest.raises(RequestError, match=r"call step\(\) after each optimizer.step\(\)"):
            optimizer.step()
    optimizer.step()


def test_gradients_that_are_not_finite_are_ignored(batches):
    """A GradScaler skips their step: `optimizer.step()` is not called."""
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    policy = Signals()
    with freeze(model, policy, optimizer=optimizer, total_steps=12, steps_per_epoch=6) as run:
        for index, batch in enumerate(batches[:4]):
            optimizer.zero_grad()
            (model(**batch).loss * (float("inf") if index == 1 else 1)).backward()
            run.gradients_ready()
            if index != 1:
                optimizer.step()
            run.step()
    assert all(norms.l2 < float("inf") for norms in policy.seen[0].gradients.values())
