"""Each signal equals its definition, computed by hand."""

import pytest
import torch
from architectures import ARCHITECTURES
from training import make_trainer, tiny_bert
from transformers import TrainerCallback

from adaptivefreeze import FreezeMask, find_blocks
from adaptivefreeze.policies import Norms
from adaptivefreeze.signals import SignalCollector
from adaptivefreeze.signals.activations import PROBE_EXAMPLES

BERT = next(a for a in ARCHITECTURES if a.name == "bert")


@pytest.fixture
def model():
    return BERT.build().eval()


def backward(model, seed):
    model.zero_grad()
    model(**BERT.inputs(seed)).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def unit_norms(stack, tensors):
    joined = {u.name: torch.cat([tensors[p.name].flatten() for p in u.parameters]).double() for u in stack.units}
    return {name: Norms(float(v.abs().sum()), float(v.norm())) for name, v in joined.items()}


def close(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].l1 == pytest.approx(expected[name].l1, rel=1e-5)
        assert found[name].l2 == pytest.approx(expected[name].l2, rel=1e-5)


def test_gradients_are_norms_of_the_signed_sum(model):
    stack = find_blocks(model)
    collector = SignalCollector(frozenset({"gradients"}), model, stack)
    sums = {}
    for interval in range(2):
        sums = {}
        for seed in range(3):
            for name, gradient in backward(model, 10 * interval + seed).items():
                sums[name] = sums.get(name, 0) + gradient
            collector.gradients_ready(None)
        close(collector.read()["gradients"], unit_norms(stack, sums))
        collector.reset()
    blocks = SignalCollector(frozenset({"block gradients"}), model, stack)
    backward(model, 0)
    blocks.gradients_ready(None)
    assert list(blocks.read()["gradients"]) == ["block 0", "block 1", "block 2"]


def test_gradients_survive_a_checkpoint_in_mid_interval(model):
    stack = find_blocks(model)
    collectors = [
        SignalCollector(frozenset({"gradients", "gradient_changes", "weight_changes"}), model, stack) for _ in range(2)
    ]
    backward(model, 0)
    collectors[0].gradients_ready(2)
    collectors[1].load({name: value.clone() for name, value in collectors[0].tensors().items()})
    backward(model, 1)
    for collector in collectors:
        collector.gradients_ready(1)
    assert collectors[0].read() == collectors[1].read()


def test_a_gradient_change_is_the_mean_difference_of_the_last_two_steps(model):
    collector = SignalCollector(frozenset({"gradient_changes"}), model, find_blocks(model))
    backward(model, 0)
    collector.gradients_ready(None)
    before = backward(model, 1)
    collector.gradients_ready(2)
    now = backward(model, 2)
    collector.gradients_ready(1)
    found = collector.read()["gradient_changes"]
    assert found.keys() == now.keys()
    for name, value in found.items():
        assert value == pytest.approx(float((now[name] - before[name]).abs().mean()), rel=1e-5)


def test_weights_their_changes_and_importance(model):
    stack = find_blocks(model)
    collector = SignalCollector(frozenset({"weights", "weight_changes", "importance"}), model, stack)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = backward(model, 0)
    collector.gradients_ready(1)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    clipped = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    collector.optimizer_stepped(1)
    read = collector.read()
    now = {name: p.detach() for name, p in model.named_parameters()}
    close(read["weights"], unit_norms(stack, now))
    close(read["weight_changes"], unit_norms(stack, {n: now[n] - before[n] for n in now}))
    for unit in stack.units:
        expected = sum(float((0.1 * clipped[p.name] * gradients[p.name]).sum()) for p in unit.parameters)
        assert read["importance"][unit.name] == pytest.approx(expected, rel=1e-2)
    collector.reset()
    assert all(norms == Norms(0, 0) for norms in collector.read()["weight_changes"].values())


def test_similarities_are_of_the_probe_batch_in_eval_mode_and_draw_nothing():
    model = BERT.build().train()
    stack = find_blocks(model)
    collector = SignalCollector(frozenset({"similarities"}), model, stack)
    model(**BERT.inputs())
    state = torch.get_rng_state()
    first = collector.read()["similarities"]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(module.training for module in model.modules())
    model(**BERT.inputs(5))
    assert collector.read()["similarities"] == first
    size = len(BERT.inputs()["input_ids"])
    assert size <= PROBE_EXAMPLES
    model.eval()
    with torch.no_grad():
        hidden = model(**BERT.inputs(), output_hidden_states=True).hidden_states
    for index in range(stack.depth):
        flat = (hidden[index + 1] * BERT.inputs()["attention_mask"][..., None]).flatten(1)
        expected = torch.nn.functional.normalize(flat @ flat.T, dim=1)
        assert torch.allclose(torch.tensor(first[f"block {index}"]), expected, atol=1e-5)
    collector.close()
    assert not model._forward_pre_hooks


def test_costs_are_of_the_batches_seen(model):
    stack = find_blocks(model)
    collector = SignalCollector(frozenset({"costs"}), model, stack)
    model.train()(**BERT.inputs())
    costs = collector.read(cached=True, examples_pass=7)["costs"]
    assert len(costs.run) == len(costs.skipped) == stack.depth + 1
    assert costs.run[0] == costs.skipped[0] == 1
    assert all(a > b for a, b in zip(costs.run, costs.run[1:], strict=False))
    assert all(skipped < run for skipped, run in zip(costs.skipped[1:], costs.run[1:], strict=True))
    assert collector.read(cached=False)["costs"].skipped == costs.run
    assert (costs.cached, costs.examples_pass) == (True, 7)


def test_an_unknown_need_is_refused(model):
    with pytest.raises(ValueError, match=r"unknown signals \['horoscope'\]; there are gradients"):
        SignalCollector(frozenset({"horoscope"}), model, find_blocks(model))


class Raw(TrainerCallback):
    """Sums the raw gradients of one weight over steps with a hook."""

    def __init__(self, parameter):
        self.total = torch.zeros_like(parameter)
        parameter.register_post_accumulate_grad_hook(self._seen)

    def _seen(self, parameter):
        self.last = parameter.grad.clone()

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.total += self.last


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3}, {"max_grad_norm": 0.0}])
def test_in_a_trainer_gradients_are_raw_and_measured_once_per_step(tmp_path, settings):
    """With strong clipping, without clipping, and with several micro-batches per step."""
    from adaptivefreeze import AutoFreeze, FreezeCallback

    model = tiny_bert()
    raw = Raw(model.bert.encoder.layer[1].output.dense.weight)
    seen = {}

    class Watched(FreezeCallback):
        def on_step_end(self, args, state, control, **kwargs):
            measure = self._run.runner.collector._measures["block gradients"]
            name = "bert.encoder.layer.1.output.dense.weight"
            seen[state.global_step] = (measure._sums[name].clone(), raw.total.clone())

    arguments = {"max_grad_norm": 0.01, "num_train_epochs": 1, **settings}
    make_trainer(model, tmp_path, [raw, Watched(AutoFreeze(intervals=1))], **arguments).train()
    assert len(seen) > 1
    for found, expected in seen.values():
        assert torch.equal(found, expected)
        assert found.abs().sum() > 0


def test_frozen_units_are_not_measured(model):
    stack = find_blocks(model)
    collector = SignalCollector(frozenset({"gradients", "importance"}), model, stack)
    for name in stack.frozen(FreezeMask.first(3, 1)):
        model.get_parameter(name).requires_grad_(False)
    model(**BERT.inputs()).loss.backward()
    collector.gradients_ready(1)
    collector.optimizer_stepped(1)
    read = collector.read()
    assert read["gradients"]["block 0"] == Norms(0, 0)
    assert read["gradients"]["block 1"].l1 > 0
    assert set(read["importance"]) == {"block 1", "block 2", "head"}
