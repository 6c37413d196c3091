"""Training a side network with Trainer: cached as uncached, killed as not killed, in half precision and in 8 bits."""

import pytest
import torch
from training import Sentences, losses, make_trainer, moved, tiny_bert, weights
from transformers import AutoModelForSequenceClassification, TrainerCallback

from adaptivefreeze import FreezeCallback, PrefixCache, RequestError, SideTuning, add_side_network, freeze
from adaptivefreeze.cache.precision import decode, encode
from adaptivefreeze.side import find_side_network

IN_ORDER = {"train_sampling_strategy": "sequential", "num_train_epochs": 3}
SIDE = "side:width=32,every=2,dropout=0.1,rate=1"


def run(folder, cache, policy=SIDE, **settings):
    callback = FreezeCallback(policy, cache=cache, eval_frozen=True)
    trainer = make_trainer(tiny_bert(), folder, [callback], **{**IN_ORDER, **settings})
    trainer.train(resume_from_checkpoint=settings.pop("resume", None))
    return trainer, callback


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
def test_cached_is_bit_identical_and_runs_the_model_once_per_example(tmp_path, settings):
    plain, _ = run(tmp_path, False, **settings)
    cached, callback = run(tmp_path, True, **settings)
    assert losses(cached) == losses(plain)
    assert not moved(weights(plain.model), weights(cached.model))
    stats = callback.cache.stats
    assert (stats.disabled_reason, stats.misses, stats.hits) == (None, 24, 48)
    assert losses(cached)[-1] < losses(cached)[0]


def test_only_the_network_and_the_head_train(tmp_path):
    trainer, callback = run(tmp_path, True)
    before = weights(tiny_bert())
    after = weights(trainer.model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    network = find_side_network(trainer.model)
    assert float(network.up.weight.detach().abs().max()) > 0
    trained = sum(p.numel() for p in network.parameters()) + 16 * 3 + 3
    assert callback.stack.trainable_parameters(callback.mask) == trained


class Stop(TrainerCallback):
    """Ends the process's training after a step, as a kill does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("save", ["full", "delta"])
@pytest.mark.parametrize("cache", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("step", [8, 15])
def test_killed_is_not_killed(tmp_path, save, cache, step):
    settings = {**IN_ORDER, "save_strategy": "steps", "save_steps": 3}

    def trainer(folder, *more):
        callback = FreezeCallback(SIDE, cache=cache, save=save)
        return make_trainer(tiny_bert(), tmp_path / folder, [callback, *more], **settings)

    whole = trainer("whole")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        trainer("killed", Stop(step)).train()
    resumed = trainer("killed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{(step - 1) // 3 * 3}"))
    assert not moved(weights(whole.model), weights(resumed.model))


def test_a_network_is_the_same_for_the_same_seed_and_leaves_the_random_state_alone(tmp_path):
    networks, states = [], []
    for policy in (SIDE, SIDE, "bottom-up:4"):
        trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback(policy)])
        networks.append(find_side_network(trainer.model))
        states.append(torch.get_rng_state())
    assert not moved(weights(networks[0]), weights(networks[1]))
    assert networks[2] is None
    assert torch.equal(states[0], states[2])


def test_precision_of_rows():
    hidden = torch.randn(3, 5, 2, 48) * torch.logspace(-3, 3, 5)[:, None, None]
    assert encode(hidden, "exact") is hidden
    for precision, error in (("float16", 1e-3), ("bfloat16", 8e-3), ("int8", 1e-2)):
        found = decode(encode(hidden, precision), precision, torch.float32)
        assert found.dtype == torch.float32
        largest = hidden.abs().amax(-1, keepdim=True)
        assert bool(((found - hidden).abs() <= error * largest).all()), precision
    stored = encode(hidden, "int8")
    assert (stored.dtype, stored.shape) == (torch.int8, (3, 5, 2, 52))
    assert not decode(torch.zeros_like(stored), "int8", torch.float32).any()  # padding
    assert not decode(encode(torch.zeros(2, 8), "int8"), "int8", torch.float32).any()


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_run_with_rounded_rows_resumes_exactly_and_stores_fewer_bytes(tmp_path, precision):
    settings = {**IN_ORDER, "save_strategy": "steps", "save_steps": 9}

    def trainer(folder):
        callback = FreezeCallback(SIDE, cache=PrefixCache(memory="1GB", precision=precision))
        return make_trainer(tiny_bert(), tmp_path / folder, [callback], **settings), callback

    whole, _ = trainer("whole")
    whole.train()
    resumed, callback = trainer("whole")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-9"))
    assert not moved(weights(whole.model), weights(resumed.model))
    assert callback.cache.stats.disabled_reason is None
    exact, _ = run(tmp_path / "exact", True)
    assert moved(weights(whole.model), weights(exact.model))


def test_rows_on_disk_serve_another_task_and_another_learning_rate(tmp_path):
    """The second task never runs the model, and neither does the second rate."""
    tiny_bert().bert.save_pretrained(tmp_path / "base")

    class Texts(Sentences):
        def __getitem__(self, index):
            row = self.rows[index]
            return {**row, "labels": row["input_ids"][1] % 3}

    def train(model, data, rate):
        callback = FreezeCallback(SIDE, cache=PrefixCache(disk=tmp_path / "rows"))
        make_trainer(model, tmp_path, [callback], train_dataset=data, learning_rate=rate, num_train_epochs=2).train()
        return callback.cache.stats

    tokens = tiny_bert()
    texts = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    first = train(tokens, Sentences(), 1e-3)
    assert (first.misses, first.disabled_reason) == (24, None)
    assert train(tiny_bert(), Sentences(), 3e-3).misses == 0
    second = train(texts, Texts(), 1e-3)
    assert (second.misses, second.disabled_reason) == (0, None)


def test_rows_of_another_shape_or_precision_are_not_mixed(tmp_path):
    shared = PrefixCache(disk=tmp_path / "rows")
    for policy, cache in (("side:width=32", shared), ("bottom-up:4", shared), ("side:width=32,every=1", shared)):
        _, callback = run(tmp_path / "run", cache, policy)
        assert (callback.cache.stats.misses, callback.cache.stats.disabled_reason) == (24, None), policy
    _, callback = run(tmp_path / "run", PrefixCache(disk=tmp_path / "rows", precision="int8"), "side:width=32")
    assert callback.cache.stats.misses == 24


def test_a_plain_loop(tmp_path):
    model = tiny_bert()
    with pytest.raises(RequestError, match="add_side_network"):
        freeze(model, SideTuning(32))
    optimizer = torch.optim.AdamW(model.parameters())
    add_side_network(model, 32)
    with pytest.raises(RequestError, match="does not train the side network"):
        freeze(model, SideTuning(32), optimizer=optimizer)
    optimizer = torch.optim.AdamW(model.parameters())
    with freeze(model, SideTuning(32), optimizer=optimizer) as loop:
        assert len(loop.mask.blocks) == 4


def test_the_factor_multiplies_the_learning_rate(tmp_path):
    """Under a policy that trains the head and the network alone, the factor is that of the whole learning rate."""

    def train(policy, rate):
        return run(tmp_path, True, policy, learning_rate=rate, weight_decay=0.0)[0].model

    scaled, plain = train("side:width=32,rate=32", 1e-4), train("side:width=32,rate=1", 32e-4)
    assert not moved(weights(scaled), weights(plain))
    assert moved(weights(scaled), weights(train("side:width=32,rate=1", 1e-4)))


def test_a_callback_added_after_the_optimizer_is_refused(tmp_path):
    trainer = make_trainer(tiny_bert(), tmp_path)
    trainer.add_callback(FreezeCallback(SIDE))
    with pytest.raises(RequestError, match="add_side_network"):
        trainer.train()
