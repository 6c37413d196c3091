"""Filling the cache in 8 bits: near the prefix as it is, the same for a row in any batch, nothing else rounded."""

import pytest
import torch
from training import losses, make_trainer, moved, tiny_bert, weights
from transformers import TrainerCallback

from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask, PrefixCache, RequestError, find_blocks
from adaptivefreeze.cache import CacheSession
from adaptivefreeze.cache.int8 import Int8Linears

CPU = torch.device("cpu")


def train(folder, cache, *callbacks, **settings):
    callback = FreezeCallback(BottomUp(2), cache=cache)
    settings = {"train_sampling_strategy": "sequential", "num_train_epochs": 3, **settings}
    trainer = make_trainer(tiny_bert(), folder, [callback, *callbacks], **settings)
    trainer.train()
    return trainer, callback


def test_a_linear_layer_is_near_the_exact_one_and_each_token_is_on_its_own():
    torch.manual_seed(0)
    linear, bare = torch.nn.Linear(64, 24), torch.nn.Linear(64, 24, bias=False)
    hidden = torch.randn(3, 5, 64) * torch.logspace(-3, 3, 5)[:, None]  # tokens of very different sizes
    hidden[1, 2] = 0
    for layer in (linear, bare):
        with torch.no_grad():
            exact, int8 = layer(hidden), Int8Linears([layer], CPU)
            with int8.active():
                rounded, alone = layer(hidden), layer(hidden[1:2, 3:])
            assert torch.equal(layer(hidden), exact), "as it was"
        assert ((rounded - exact).norm(dim=-1) <= 0.02 * exact.norm(dim=-1) + 1e-6).all()
        assert not torch.equal(rounded, exact)
        assert torch.equal(rounded[1:2, 3:], alone)


def test_a_layer_that_was_trained_is_rounded_again():
    linear = torch.nn.Linear(8, 8)
    int8 = Int8Linears([linear], CPU)
    with torch.no_grad():
        with int8.active():
            linear(torch.ones(1, 8))
        linear.weight.mul_(2)
        with int8.active():
            assert linear(torch.ones(1, 8))[0] == pytest.approx(linear.weight.sum(1) + linear.bias, abs=0.1)
        linear.weight.data = linear.weight.data * 2
        int8.forget()
        with int8.active():
            assert linear(torch.ones(1, 8))[0] == pytest.approx(linear.weight.sum(1) + linear.bias, abs=0.1)


def test_training_sees_rounded_rows_in_every_pass_and_leaves_the_prefix_bit_identical(tmp_path):
    plain, exact = train(tmp_path / "exact", True)
    before = weights(tiny_bert())
    rounded, callback = train(tmp_path / "int8", PrefixCache(compute="int8"))
    assert callback.cache.stats.disabled_reason is None
    assert (callback.cache.stats.misses, callback.cache.stats.hits) == (
        exact.cache.stats.misses,
        exact.cache.stats.hits,
    )
    assert losses(rounded) != losses(plain)
    assert losses(rounded) == pytest.approx(losses(plain), rel=0.1)
    prefix = {name for name in before if "embeddings" in name or "layer.0." in name or "layer.1." in name}
    assert not prefix & moved(before, weights(rounded.model))
    assert not any("forward" in vars(module) for module in rounded.model.modules())


def test_the_rows_of_both_ways_are_kept_apart_in_a_folder(tmp_path):
    disk = tmp_path / "rows"
    found = [train(tmp_path, PrefixCache(disk=disk, compute=compute))[1] for compute in ("exact", "int8", "int8")]
    assert [callback.cache.stats.misses for callback in found] == [24, 24, 0]


def test_rows_do_not_depend_on_the_batch(tmp_path):
    one, _ = train(tmp_path, PrefixCache(compute="int8"))
    other, callback = train(tmp_path, PrefixCache(compute="int8", memory=0))
    assert callback.cache.stats.disabled_reason, "no row fits into memory"
    assert losses(other) == pytest.approx(losses(one), rel=1e-4), "computed again in each pass, to the same values"


class Deeper(TrainerCallback):
    """Freezes a third block after two passes."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 12:
            self.callback.move(FreezeMask.first(4, 3), "planned", state)


def test_a_moved_boundary_extends_rounded_rows(tmp_path):
    deeper = Deeper()
    deeper.callback = FreezeCallback(BottomUp(2), cache=PrefixCache(compute="int8"))
    trainer = make_trainer(tiny_bert(), tmp_path, [deeper.callback, deeper], num_train_epochs=4)
    trainer.train()
    assert deeper.callback.cache.stats.carried == 24
    assert deeper.callback.cache.stats.disabled_reason is None


def test_it_is_refused_where_it_cannot_be_had(monkeypatch):
    with pytest.raises(RequestError, match="compute must be exact or int8, not 'int4'"):
        PrefixCache(compute="int4")
    with pytest.raises(RequestError, match="the model is on cuda: omit it"):
        Int8Linears([], torch.device("cuda"))
    monkeypatch.delattr(torch, "_int_mm")
    model = tiny_bert()
    with pytest.raises(RequestError, match="this version of torch has none"):
        CacheSession(PrefixCache(compute="int8"), model, find_blocks(model))
