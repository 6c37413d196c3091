"""Policies that freeze parts of parameters: what they choose, in a real Trainer, resumed, and saved as a delta."""

import contextlib

import pytest
import torch
from policies.test_training import STEPS, Killed
from torch.utils.data import IterableDataset
from training import Sentences, losses, make_trainer, moved, tiny_bert, weights

from adaptivefreeze import (
    EmbeddingRows,
    FewDimensions,
    FreezeCallback,
    FreezeMask,
    RequestError,
    Semifreddo,
    WeightFreezing,
    find_blocks,
    freeze,
    load_delta,
    parse_policy,
)
from adaptivefreeze.policies import Ceiling
from adaptivefreeze.testing import example_stack

WORDS = "bert.embeddings.word_embeddings.weight"
DECAY = {"weight_decay": 0.1, "learning_rate": 1e-2, "num_train_epochs": 2}


def changed(policy, tmp_path, **settings):
    """Train by a policy. Return the weights before, and where they have changed."""
    model = tiny_bert()
    before = weights(model)
    callback = FreezeCallback(policy)
    make_trainer(model, tmp_path, [callback], **{**DECAY, **settings}).train()
    return callback, before, {name: value != before[name] for name, value in weights(model).items()}


def test_semifreddo_freezes_the_first_channels_of_each_layer(tmp_path):
    _, _, moving = changed(Semifreddo(0.25), tmp_path)
    for name, where in moving.items():
        if name.startswith("classifier"):
            assert where.all()
        elif "embeddings.weight" in name:
            assert not where[:, :4].any()
            assert where[:, 4:].any()
        else:
            frozen = len(where) // 4
            assert not where[:frozen].any(), name
            assert where[frozen:].any(), name


def test_few_dimensions_train_alone_with_the_head(tmp_path):
    policy = FewDimensions(2, seed=1)
    _, _, moving = changed(policy, tmp_path)
    found = {
        name: set(where.nonzero()[:, 0].tolist() if where.shape[0] == 16 else where.nonzero()[:, 1].tolist())
        for name, where in moving.items()
        if where.any() and not name.startswith("classifier")
    }
    dimensions = found["bert.encoder.layer.0.output.dense.bias"]
    assert len(dimensions) == 2
    assert all(where == dimensions for where in found.values())
    assert len(found) == len(
        [n for n in moving if not n.startswith("classifier") and "intermediate.dense.bias" not in n]
    )
    assert moving["classifier.weight"].all()


@pytest.mark.parametrize("choice", ["first", "smallest", "random"])
def test_weight_freezing_freezes_single_weights_of_matrices(tmp_path, choice):
    _, before, moving = changed(WeightFreezing(0.25, choice=choice, units="all"), tmp_path)
    for name, where in moving.items():
        if where.dim() == 2 and "embeddings" not in name:
            frozen = (~where).flatten()
            assert int(frozen.sum()) == round(0.25 * where.numel()), name
            if choice == "first":
                assert frozen[: int(frozen.sum())].all()
            elif choice == "smallest":
                sizes = before[name].abs().flatten()
                assert sizes[frozen].max() <= sizes[~frozen].min()
        elif "embeddings" not in name:
            assert where.all(), name
    query, key = (moving[f"bert.encoder.layer.0.attention.self.{name}.weight"] for name in ("query", "key"))
    assert choice == "first" or not torch.equal(query, key), "the same draw for each matrix"


def test_rows_of_tokens_that_do_not_occur_stay(tmp_path):
    """Without the policy, weight decay shrinks them."""
    seen = {token for row in Sentences() for token in row["input_ids"].tolist()}
    callback, _, moving = changed("embedding-rows", tmp_path / "rows")
    rows = set(moving[WORDS].any(1).nonzero().flatten().tolist())
    assert rows == seen - {0}  # the gradient of the padding token is zero, and so is its row
    frozen = 16 * (64 - len(seen))
    assert callback.log_values()["freeze/trainable_parameters"] == callback.stack.total - frozen
    assert str(callback.mask).startswith(f"embeddings.{WORDS}[{64 - len(seen)} rows]")
    assert callback.summary().bytes_saved == 0
    _, _, moving = changed("nothing", tmp_path / "all")
    assert moving[WORDS].any(1).sum() == 63
    assert EmbeddingRows.of(seen).initial_mask(callback.stack) == callback.mask


def test_listed_rows_train_and_others_stay(tmp_path):
    _, _, moving = changed("embedding-rows:10-19+30", tmp_path)
    assert set(moving[WORDS].any(1).nonzero().flatten().tolist()) == {*range(10, 20), 30}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Sentences())


class Pictures(Sentences):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {"pixel_values": row["input_ids"], "labels": row["labels"]}


@pytest.mark.parametrize(
    ("data", "sentence"), [(Stream(), "occur in a stream are not known"), (Pictures(), "has no input_ids")]
)
def test_unknown_tokens_are_refused_before_training(tmp_path, data, sentence):
    settings = {"train_dataset": data, "max_steps": 2, "remove_unused_columns": False}
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("embedding-rows")], **settings)
    with pytest.raises(RequestError, match=sentence):
        trainer.train()


def test_in_a_plain_loop_the_rows_have_to_be_listed():
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(RequestError, match="known to a FreezeCallback in a Trainer only"):
        freeze(model, "embedding-rows", optimizer=optimizer)
    with freeze(model, EmbeddingRows.of([3, 4]), optimizer=optimizer) as run:
        assert str(run.mask) == f"embeddings.{WORDS}[rows 0-2+5-63] | embeddings 0-3 head"


@pytest.mark.parametrize(
    "policy", ["weight-freezing:0.5,choice=smallest,units=all", "embedding-rows", "semifreddo:0.5"]
)
def test_resumed_it_ends_as_if_never_stopped(tmp_path, policy):
    settings = {**STEPS, **DECAY, "num_train_epochs": 4, "save_strategy": "steps", "save_steps": 9}
    whole = make_trainer(tiny_bert(), tmp_path / "whole", [FreezeCallback(policy)], **settings)
    whole.train()
    with contextlib.suppress(KeyboardInterrupt):
        make_trainer(tiny_bert(), tmp_path / "cut", [FreezeCallback(policy), Killed()], **settings).train()
    resumed = make_trainer(tiny_bert(1), tmp_path / "cut", [FreezeCallback(policy)], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-9"))
    assert losses(whole)[9:] == losses(resumed)[9:]
    assert not moved(weights(whole.model), weights(resumed.model))


def test_clipping_and_accumulation_in_the_trainer_keep_what_is_frozen(tmp_path):
    settings = {"max_grad_norm": 0.01, "gradient_accumulation_steps": 2, "optim": "adafactor"}
    _, _, moving = changed(Semifreddo(0.5), tmp_path, **settings)
    query = moving["bert.encoder.layer.0.attention.self.query.weight"]
    assert not query[:8].any()
    assert query[8:].any()


def test_a_delta_holds_what_trains_in_part(tmp_path):
    model = tiny_bert()
    callback = FreezeCallback("weight-freezing:0.5+floor:2", save="delta")
    trainer = make_trainer(model, tmp_path, [callback], **DECAY)
    trainer.train()
    trainer.save_model(str(tmp_path / "delta"))
    loaded = load_delta(tiny_bert(), tmp_path / "delta")
    assert not moved(weights(model), weights(loaded))


def test_with_the_cache_the_prefix_ends_below_a_block_that_trains_in_part(tmp_path):
    callback = FreezeCallback("semifreddo:0.5+floor:2", cache=True)
    make_trainer(tiny_bert(), tmp_path, [callback], **DECAY).train()
    assert callback.mask.prefix == 3
    assert callback.cache.stats.hits == 24


def test_a_ceiling_trains_all_above_it():
    mask = Ceiling(Semifreddo(0.5), 1).initial_mask(example_stack(4))
    assert {part.unit for part in mask.slices} == {"embeddings", "block 0"}
    assert Ceiling(WeightFreezing(), 2).initial_mask(example_stack(4)) == FreezeMask(4)
    assert Ceiling(Semifreddo(0.5), 0).initial_mask(example_stack(4)) == FreezeMask(4)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("semifreddo:0", "share must be a number above 0"),
        ("semifreddo:1.1", "share must be"),
        ("dimensions:0", "count must be a whole number of 1 or more"),
        ("weight-freezing:1.0", "share must be below 1"),
        ("weight-freezing:0.3,choice=largest", "choice must be random, smallest or first"),
        ("weight-freezing:0.3,units=1", "units must be head, blocks or all"),
        ("embedding-rows:all", "rows must be 'seen' or ranges such as"),
        ("embedding-rows:9-3", "rows must be 'seen' or ranges such as"),
        ("embedding-rows:-1", "rows must be 'seen' or ranges such as"),
    ],
)
def test_wrong_arguments_are_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_policy(spec)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("dimensions:17", "this model has 16 dimensions; give 1 to 16, not 17"),
        ("embedding-rows:64", "row 64 is out of range, bert.embeddings.word_embeddings.weight has rows 0 to 63"),
    ],
)
def test_a_policy_that_does_not_fit_the_model_is_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_policy(spec).initial_mask(find_blocks(tiny_bert()))
