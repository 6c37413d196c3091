"""BlockRates: factors as written, the decay by layer, and training as with parameter groups made by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import make_trainer, tiny_bert, twin, weights

from adaptivefreeze import BlockRates, FreezeCallback, RequestError, find_blocks, freeze, parse_policy
from adaptivefreeze.policies import After, is_full_fine_tuning
from adaptivefreeze.testing import Run, example_stack, simulate

FACTORS = st.sampled_from([0.0, 0.1, 0.25, 1.0, 2.5])
OTHERS = st.dictionaries(st.sampled_from(["embeddings", "head"]), FACTORS)


def test_units_as_named():
    policy = parse_policy("rates:0-1=0,2=0.5,head=3")
    assert policy.of_units(4) == {
        "embeddings": 0, "block 0": 0, "block 1": 0, "block 2": 0.5, "block 3": 1, "head": 3,
    }  # fmt: skip
    assert str(policy.initial_mask(example_stack(4))) == "embeddings+0-1 | 2-3 head"
    assert policy.initial_learning_rates(example_stack(4)) == {"block 2": 0.5, "head": 3}


def test_a_decay_falls_from_the_head_to_the_embeddings():
    assert BlockRates("decay=0.5").of_units(2) == {"embeddings": 0.125, "block 0": 0.25, "block 1": 0.5, "head": 1}
    mixed = BlockRates("decay=0.5,0=0,embeddings=1").of_units(2)
    assert mixed == {"embeddings": 1, "block 0": 0, "block 1": 0.5, "head": 1}


@given(st.dictionaries(st.integers(0, 11), FACTORS, min_size=1), OTHERS)
def test_a_mapping_is_read_back_from_its_spec(blocks, others):
    factors = {f"block {i}": factor for i, factor in blocks.items()} | others
    policy = BlockRates.of(factors)
    units = parse_policy(str(policy)).of_units(12)
    assert {name: units[name] for name in factors} == factors
    named = {*factors, *(["embeddings"] if "block 0" in factors else [])}
    assert all(factor == 1 for name, factor in units.items() if name not in named)


def test_training_equals_groups_made_by_hand():
    model = tiny_bert()
    by_hand = twin(model)
    policy = BlockRates("decay=0.5,0=0")
    units = policy.of_units(4)
    stack = find_blocks(model)
    inputs = {"input_ids": torch.arange(8).reshape(1, 8) + 5, "labels": torch.arange(8).reshape(1, 8) % 3}

    def train(trained, optimizer):
        for seed in range(3):
            torch.manual_seed(seed)
            optimizer.zero_grad()
            trained(**inputs).loss.backward()
            optimizer.step()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with freeze(model, policy, optimizer=optimizer):
        train(model, optimizer)
    parameters = dict(by_hand.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(units[stack.unit_of[name]] > 0)
    groups = [
        {"params": [parameters[p.name] for p in unit.parameters], "lr": 1e-2 * units[unit.name]}
        for unit in stack.units
        if units[unit.name]
    ]
    train(by_hand, torch.optim.AdamW(groups, weight_decay=0.1))
    expected = weights(by_hand)
    assert all(torch.equal(value, expected[name]) for name, value in weights(model).items())


def test_in_a_trainer_the_scheduled_rate_is_scaled(tmp_path):
    callback = FreezeCallback("rates:decay=0.9,0-1=0", cache=True)
    make_trainer(tiny_bert(), tmp_path, [callback], num_train_epochs=2).train()
    assert str(callback.mask) == "embeddings+0-1 | 2-3 head"
    assert callback.cache.stats.hits == 24


@pytest.mark.parametrize(("spec", "full"), [("rates:0=1", True), ("rates:decay=0.9", False), ("rates:3=2", False)])
def test_other_rates_are_no_full_fine_tuning(spec, full):
    assert is_full_fine_tuning(parse_policy(spec), 4) is full
    assert is_full_fine_tuning(parse_policy(spec), example_stack(4)) is full


def test_after_a_part_of_the_run_the_rates_begin_with_the_mask():
    policy = After(BlockRates("0=0,1=0.5"), 0.5)
    assert not policy.initial_learning_rates(example_stack(4))
    (step,) = simulate(policy, example_stack(4), Run())
    assert step.step == 20
    assert step.decision.learning_rates == {"block 1": 0.5}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("rates:0.5", "write UNIT=FACTOR, as in rates:0-1=0,2=0.5"),
        ("rates:0=fast", "write UNIT=FACTOR"),
        ("rates:0=-1", "write UNIT=FACTOR"),
        ("rates:0=nan", "write UNIT=FACTOR"),
        ("rates:pooler=1", "write UNIT=FACTOR"),
        ("rates:3-1=0", "3-1 is no range of blocks"),
        ("rates:0-2=0,1=0.5", "1 has two factors"),
        ("rates", "rates needs factors"),
    ],
)
def test_wrong_factors_are_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_policy(spec)


def test_a_block_that_the_model_lacks_is_one_sentence():
    with pytest.raises(RequestError, match="block 4 is out of range, this model has blocks 0 to 3"):
        BlockRates("2-4=0").initial_mask(example_stack(4))
