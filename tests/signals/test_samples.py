"""Weight samples: the same positions in every run, changes since the start of training, independent of scale."""

import pytest
import torch
from training import tiny_bert

from adaptivefreeze import find_blocks
from adaptivefreeze.signals import SignalCollector
from adaptivefreeze.signals.samples import SAMPLES, WeightSamples

NEED = frozenset({"weight_samples"})


def shift(model, name, by):
    with torch.no_grad():
        model.get_parameter(name).add_(by)


def test_changes_since_the_start_relative_to_the_size_at_the_start():
    model = tiny_bert()
    stack = find_blocks(model)
    block = stack.units[2]
    start = torch.cat([model.get_parameter(p.name).detach().flatten() for p in block.parameters])
    places = torch.randint(len(start), (SAMPLES,), generator=torch.Generator().manual_seed(2401)).sort().values
    collector = SignalCollector(NEED, model, stack)
    before = torch.get_rng_state()
    assert all(value == 0 for values in collector.read()["weight_samples"].values() for value in values)
    assert torch.equal(torch.get_rng_state(), before), "it draws from a generator of its own"

    for parameter in block.parameters:
        shift(model, parameter.name, torch.arange(parameter.size).reshape(parameter.shape) * 1e-3)
    collector.reset()  # counts from the start of training, not since the last decision
    found = collector.read()["weight_samples"]
    now = torch.cat([model.get_parameter(p.name).detach().flatten() for p in block.parameters])
    expected = (now - start)[places] / start[places].square().mean().sqrt()
    assert found["block 1"] == pytest.approx(expected.tolist(), rel=1e-5)
    assert set(found) == {unit.name for unit in stack.units}
    assert {len(values) for values in found.values()} == {SAMPLES}
    assert not any(found["block 0"])


def test_the_size_of_the_weights_does_not_matter():
    found = []
    for factor in (1.0, 8.0):
        model = tiny_bert()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        collector = SignalCollector(NEED, model, find_blocks(model))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        found.append(collector.read()["weight_samples"])
    assert found[0]["block 2"] == pytest.approx(found[1]["block 2"])
    assert sum(value**2 for value in found[0]["block 2"]) == pytest.approx(0.25 * SAMPLES, rel=1e-4)


def test_a_checkpoint_contains_the_start():
    model = tiny_bert()
    stack = find_blocks(model)
    first = SignalCollector(NEED, model, stack)
    shift(model, "bert.encoder.layer.0.output.dense.weight", 0.5)
    second = SignalCollector(NEED, model, stack)
    assert first.read() != second.read()
    second.load({name: value.clone() for name, value in first.tensors().items()})
    assert first.read() == second.read()


def test_half_precision_is_compared_in_single_precision():
    model = tiny_bert().to(torch.bfloat16)
    measure = WeightSamples(model, find_blocks(model))
    assert measure.tensors()["start"].dtype == torch.float32
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    start = measure.tensors()["start"][1]
    assert measure.read()["block 0"] == pytest.approx((start / start.square().mean().sqrt()).tolist(), rel=1e-5)
