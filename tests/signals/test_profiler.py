"""StepProfiler: each part of a step gets its own time, and time outside of steps counts for none."""

import time
from types import SimpleNamespace

import pytest
import torch
from training import Sentences, make_trainer, tiny_bert
from transformers import TrainerCallback

from adaptivefreeze import Budget, FreezeCallback, find_blocks
from adaptivefreeze.model.cost import StepSeconds
from adaptivefreeze.signals import profiler
from adaptivefreeze.signals.profiler import ENOUGH, StepProfiler


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances only when the test sets it."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(profiler, "time", clock)
    return clock


@pytest.fixture
def model():
    return tiny_bert()


def step(profiler, clock, due, *, batches=1, stepped=True, tokens=100):
    """One step: 1 second before, 2 forward and 3 backward per batch, 5 to update, 1 after, and 200 of measuring."""
    profiler.begin_step(due)
    clock.now += 1
    for _ in range(batches):
        profiler.on_batch(tokens)
        clock.now += 2 * tokens / 100
        profiler.on_forward_end()
        clock.now += 3 * tokens / 100
    profiler.on_gradients()
    clock.now += 100
    profiler.resume()
    clock.now += 5
    if stepped:
        profiler.on_optimizer_step()
        clock.now += 100
        profiler.resume()
    clock.now += 1
    profiler.end_step()
    clock.now += 1000  # loading, evaluating


def test_parts_are_timed_separately(clock, model):
    """On a CPU every step but the first is timed. The time of other measures counts in the total only."""
    profiler = StepProfiler(model, find_blocks(model))
    for _ in range(1 + ENOUGH):
        assert profiler.seconds() is None
        assert profiler.full_steps_taken() is None
        step(profiler, clock, None)
    assert profiler.seconds() == StepSeconds(2, 3, 5, 2)
    assert profiler.full_steps_taken() == (1 + ENOUGH) * 212 / 12


def test_on_a_gpu_the_last_step_before_a_decision_point_is_timed(clock, model, monkeypatch):
    profiler = StepProfiler(model, find_blocks(model))
    profiler._device, waited = SimpleNamespace(type="cuda"), []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for timed in range(ENOUGH):
        assert profiler.seconds() is None
        step(profiler, clock, None)
        step(profiler, clock, 2)
        assert len(waited) == 8 * timed, "in other steps it is not waited for"
        step(profiler, clock, 1)
    assert profiler.seconds() == StepSeconds(2, 3, 5, 2)


def test_a_step_of_several_batches_is_one_step(clock, model):
    profiler = StepProfiler(model, find_blocks(model))
    for _ in range(1 + ENOUGH):
        step(profiler, clock, 1, batches=4)
    assert profiler.seconds() == StepSeconds(8, 12, 5, 2)


def test_only_full_steps_count(clock, model):
    profiler = StepProfiler(model, find_blocks(model))
    for _ in range(1 + ENOUGH):
        step(profiler, clock, 1, stepped=False)  # AMP skipped the update
    model.bert.embeddings.requires_grad_(False)
    for _ in range(ENOUGH):
        step(profiler, clock, 1)
    assert profiler.seconds() is None


def test_times_are_scaled_to_the_mean_length(clock, model):
    """The longest batches come first and are timed; their times are scaled to the mean length of all steps."""
    profiler = StepProfiler(model, find_blocks(model))
    for _ in range(1 + ENOUGH):
        step(profiler, clock, 1, tokens=200)
    assert profiler.seconds() == StepSeconds(4, 6, 5, 2)
    model.bert.embeddings.requires_grad_(False)
    for _ in range(1 + ENOUGH):
        step(profiler, clock, 1, tokens=100)
    assert profiler.seconds() == StepSeconds(3, 4.5, 5, 2)
    for _ in range(10):
        step(profiler, clock, 1, tokens=0)
    assert profiler.seconds().forward < 1.5


def test_state_survives_a_checkpoint(clock, model):
    profiler, resumed = (StepProfiler(model, find_blocks(model)) for _ in range(2))
    resumed.load(profiler.tensors())
    assert resumed.seconds() is None
    for _ in range(1 + ENOUGH):
        step(profiler, clock, 1)
    resumed.load(profiler.tensors())
    assert resumed.seconds() == profiler.seconds() == StepSeconds(2, 3, 5, 2)
    assert resumed.full_steps_taken() == profiler.full_steps_taken()


class Look(TrainerCallback):
    """Records the costs that the policy receives."""

    def __init__(self, freezing):
        self.freezing, self.costs, self.seconds = freezing, [], []

    def on_step_end(self, args, state, control, **kwargs):
        collector = self.freezing._run.runner.collector
        self.costs.append(collector.read(cached=True, examples_pass=6)["costs"])
        self.seconds.append(collector._profiler.seconds())


class SlowAdam(torch.optim.AdamW):
    def step(self, closure=None):
        time.sleep(0.05)
        return super().step(closure)


class SlowSentences(Sentences):
    def __getitem__(self, index):
        time.sleep(0.1)
        return super().__getitem__(index)


class SlowCallback(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(0.05)


def test_slow_parts_are_attributed_in_a_real_trainer(tmp_path):
    """12 steps of two batches. Costs depend on shapes alone until enough steps were timed."""
    model = tiny_bert()
    freezing = FreezeCallback(Budget(1.0, decisions=6))
    look = Look(freezing)
    trainer = make_trainer(
        model,
        tmp_path,
        [freezing, look, SlowCallback()],
        train_dataset=SlowSentences(8),
        optimizers=(SlowAdam(model.parameters(), lr=1e-3), None),
        gradient_accumulation_steps=2,
        num_train_epochs=12,
    )
    trainer.train()
    first, last, seconds = look.costs[0], look.costs[-1], look.seconds[-1]
    assert look.seconds[0] is None
    assert seconds.optimizer >= 0.05
    assert seconds.other >= 0.05
    assert seconds.forward + seconds.backward < 0.4, "loading, 0.8 s a step, is no part of it"
    assert last.run[0] == last.skipped[0] == 1
    assert seconds.other / seconds.total < last.skipped[-1] < last.run[-1]
    assert first.skipped[-1] < last.skipped[-1], "a slow callback is not skipped"
    assert first.taken is None
    assert 11 < last.taken < 24
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
