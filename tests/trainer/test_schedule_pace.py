"""SchedulePace: any scheduler is advanced faster, exactly as by hand, and the run ends with its schedule."""

import math

import pytest
import torch
from training import losses, make_trainer, moved, tiny_bert, twin, weights
from transformers import TrainerCallback
from transformers.optimization import SchedulerType

from adaptivefreeze import FreezeCallback, FreezeMask
from adaptivefreeze.policies import AdaptivePolicy, Decision, DecisionPoints
from adaptivefreeze.trainer.schedule_pace import SchedulePace

STEPS = {"num_train_epochs": 4, "eval_strategy": "steps", "eval_steps": 3, "logging_steps": 1}
KINDS = ["linear", "cosine", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_restarts"]


class Hurry(AdaptivePolicy):
    """Freezes nothing. From step `start` on the schedule advances at `rate`."""

    name = "hurry"

    def __init__(self, rate, start=6):
        self.rate, self.begin, self.ahead = rate, start, []

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints(range(1, total_steps))

    def update(self, signals):
        self.ahead.append(signals.ahead)
        now = signals.step >= self.begin
        return Decision(signals.mask, "hurries" if signals.step == self.begin else "", pace=self.rate if now else None)

    def __str__(self):
        return f"hurry:{self.rate}"


class Rates(TrainerCallback):
    """Records the learning rate of the optimizer in each step."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.seen.append(optimizer.param_groups[0]["lr"])


def rates(folder, policy, **settings):
    seen, freezing = Rates(), FreezeCallback(policy)
    trainer = make_trainer(tiny_bert(), folder, [freezing, seen], **{**STEPS, **settings})
    trainer.train()
    return seen.seen, trainer


@pytest.mark.parametrize("kind", KINDS)
def test_any_schedule_is_advanced_faster_and_the_run_ends_with_it(tmp_path, kind):
    assert kind in {k.value for k in SchedulerType}
    settings = {"lr_scheduler_type": kind, "warmup_steps": 4}
    every, _ = rates(tmp_path / "whole", "nothing", **settings)
    found, trainer = rates(tmp_path / "fast", Hurry(1.5), **settings)
    # From step 6 on, 18 steps of the schedule in 12.
    assert len(every) == 24
    assert found == every[:7] + [every[6 + math.floor(1.5 * n)] for n in range(1, 12)]
    assert trainer.state.global_step == 18
    assert trainer.state.epoch == 3
    assert any("eval_loss" in line for line in trainer.state.log_history if line["step"] == 18)


def test_a_pace_of_one_changes_nothing(tmp_path):
    _, alone = rates(tmp_path / "alone", "nothing")
    _, paced = rates(tmp_path / "paced", Hurry(1.0))
    assert losses(alone) == losses(paced)
    assert not moved(weights(alone.model), weights(paced.model))


def test_a_schedule_that_depends_on_a_metric_is_not_advanced(tmp_path):
    found, trainer = rates(tmp_path, Hurry(3.0), lr_scheduler_type="reduce_lr_on_plateau")
    assert trainer.state.global_step == 12
    assert len(set(found)) == 1


@pytest.mark.parametrize(("ratio", "steps"), [(0.5, 12), (0.3, 7), (0.97, 23), (1.0, 24), (0.001, 2)])
def test_short_full_ends_the_schedule_at_its_share_of_the_steps(tmp_path, ratio, steps):
    every, whole = rates(tmp_path / "whole", "nothing")
    found, trainer = rates(tmp_path / "short", f"short-full:{ratio}")
    assert (len(every), len(found), trainer.state.global_step) == (24, steps, steps)
    # Within one of its steps, since the first one passes at the usual pace.
    even = [every[0] * (1 - step / steps) for step in range(steps)]
    assert found == pytest.approx(even, abs=every[0] / steps)
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    if ratio == 1:
        assert not moved(weights(whole.model), weights(trainer.model))


class Killed(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 12:
            raise KeyboardInterrupt


def test_a_resumed_run_keeps_its_pace(tmp_path):
    settings = {**STEPS, "save_strategy": "steps", "save_steps": 9}
    whole = make_trainer(tiny_bert(), tmp_path / "whole", [FreezeCallback(Hurry(1.3))], **settings)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tiny_bert(), tmp_path / "cut", [FreezeCallback(Hurry(1.3)), Killed()], **settings).train()
    policy = Hurry(1.3)
    resumed = make_trainer(tiny_bert(1), tmp_path / "cut", [FreezeCallback(policy)], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-9"))
    assert policy.ahead[0] == pytest.approx(1.2)  # at step 10, four of them accelerated
    assert whole.state.global_step == resumed.state.global_step == 20
    assert losses(whole)[9:] == losses(resumed)[9:]
    assert not moved(weights(whole.model), weights(resumed.model))


def test_a_pace_below_one_is_refused():
    for rate in (0.5, 0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="must be 1 or more"):
            SchedulePace().set_rate(rate)


def test_advancing_equals_scheduler_steps_by_hand():
    model = tiny_bert()
    optimizers = [torch.optim.SGD(m.parameters(), lr=1.0) for m in (model, twin(model))]
    own, by_hand = (torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in optimizers)
    for optimizer in optimizers:
        optimizer.step()
    pace = SchedulePace(2.5)
    for step in range(1, 5):
        own.step()
        assert not pace.advance(own, step, total_steps=100)
    for _ in range(10):
        by_hand.step()
    assert own.get_last_lr() == by_hand.get_last_lr()
    assert pace.state_dict() == {"rate": 2.5, "ahead": 6.0, "skipping": 1.0}


@pytest.mark.parametrize(("whole", "kept"), [(100, 77), (6, 5), (97, 31)])
def test_an_epoch_from_which_steps_are_left_out_ends_where_a_whole_one_would(whole, kept):
    """The sum of as many fractions of a step is a whole number, which rounding must not miss."""
    optimizer = torch.optim.SGD(tiny_bert().parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 + step)
    optimizer.step()
    pace = SchedulePace()
    pace.set_skipping(whole / kept)
    assert pace.remaining_steps(0, 2 * whole) == pytest.approx(2 * kept)
    for step in range(1, 2 * kept + 1):
        scheduler.step()
        ended = pace.advance(scheduler, step, total_steps=2 * whole)
        assert ended == (step == 2 * kept)
        if step == kept:
            assert scheduler.get_last_lr() == [1.0 + whole]
