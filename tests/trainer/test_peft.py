"""Adapters in the upper blocks: the cache skips the blocks below, whoever froze them."""

import pytest
import torch
from architectures import ARCHITECTURES
from peft import LoraConfig, get_peft_model
from training import losses, make_trainer, moved, tiny_bert, weights

from adaptivefreeze import FreezeCallback, FreezeMask, find_blocks, lora_above

IN_ORDER = {"train_sampling_strategy": "sequential", "num_train_epochs": 3}


def adapted_bert(k=2, **options):
    """A tiny BERT of 4 blocks with dropout 0.1, adapters in blocks k and above, and a head that trains."""
    model = tiny_bert()
    return get_peft_model(model, lora_above(model, k, r=2, task_type="TOKEN_CLS", **options))


def train(model, folder, policy, cache, **settings):
    callback = FreezeCallback(policy, cache=cache, eval_frozen=True)
    trainer = make_trainer(model, folder, [callback], **{**IN_ORDER, **settings})
    trainer.train()
    return trainer, callback


def assert_equal_and_served(make, folder, policy="nothing", **settings):
    plain, _ = train(make(), folder, policy, False, **settings)
    cached, callback = train(make(), folder, policy, True, **settings)
    stats = callback.cache.stats
    assert (stats.disabled_reason, stats.misses, stats.hits) == (None, 24, 48)
    assert losses(cached) == losses(plain)
    assert not moved(weights(plain.model), weights(cached.model))
    return cached, callback


@pytest.mark.parametrize("policy", ["nothing", "bottom-up:1", "bottom-up:2", "bottom-up:3", "interleaved:2"])
def test_cached_equals_uncached(policy, tmp_path):
    assert_equal_and_served(adapted_bert, tmp_path, policy)


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"lora_dropout": 0.2}, {"bias": "lora_only"}, {"use_rslora": True}], ids=str
)
def test_options_of_lora(options, tmp_path):
    assert_equal_and_served(lambda: adapted_bert(**options), tmp_path)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant, tmp_path):
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    assert_equal_and_served(adapted_bert, tmp_path, **settings)


def test_adapters_inside_the_frozen_prefix_do_not_train(tmp_path):
    def everywhere():
        config = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False, task_type="TOKEN_CLS")
        return get_peft_model(tiny_bert(), config)

    before = weights(everywhere())
    cached, _ = assert_equal_and_served(everywhere, tmp_path, "bottom-up:2")
    changed = {name for name in moved(before, weights(cached.model)) if "lora_" in name}
    assert {name.split(".layer.")[1][0] for name in changed} == {"2", "3"}


def test_blocks_frozen_by_hand_are_skipped(tmp_path):
    def frozen():
        model = tiny_bert()
        for module in (model.bert.embeddings, *model.bert.encoder.layer[:2]):
            module.requires_grad_(False)
        return model

    _, callback = assert_equal_and_served(frozen, tmp_path)
    assert str(callback.mask) == "- | embeddings 0-3 head"


def test_trained_embeddings_leave_nothing_to_skip(tmp_path):
    def with_embeddings():
        config = LoraConfig(r=2, target_modules=["word_embeddings"], task_type="TOKEN_CLS")
        return get_peft_model(tiny_bert(), config)

    _, callback = train(with_embeddings(), tmp_path, "nothing", True)
    assert (callback.cache.stats.hits, callback.cache.stats.misses) == (0, 0)


def test_the_blocks_below_do_not_run(tmp_path):
    model = adapted_bert()
    ran = []
    layer = model.get_submodule("base_model.model.bert.encoder.layer.1.output.dense")
    layer.register_forward_pre_hook(lambda *_: ran.append(torch.is_grad_enabled()))
    _, callback = train(model, tmp_path, "nothing", True)
    assert callback.cache.stats.hits == 48
    assert len(ran) < 18  # filling, and the check of the first batch
    assert not any(ran)


def test_the_prefix_of_a_mask_counts_what_the_user_froze():
    model = next(a for a in ARCHITECTURES if a.name == "llama").build()
    stack = find_blocks(model)
    assert [stack.prefix(mask) for mask in (FreezeMask(3), FreezeMask.first(3, 2))] == [0, 3]
    model.requires_grad_(False)
    model.model.layers[1].requires_grad_(True)
    stack = find_blocks(model)
    assert [stack.prefix(mask) for mask in (FreezeMask(3), FreezeMask.first(3, 2))] == [2, 4]
