"""Slices: frozen elements stay bit-identical, the others train as with values put back by hand after each step."""

import json
import math
import re

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from training import tiny_bert, twin, weights
from transformers.optimization import Adafactor

from adaptivefreeze import BottomUp, FreezeMask, Freezer, RequestError, Slice, find_blocks, freeze
from adaptivefreeze.model.cost import optimizer_bytes, predict
from adaptivefreeze.model.slices import ranges_of

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=False),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "adafactor": lambda p: Adafactor(p, lr=1e-2, weight_decay=0.1, relative_step=False, beta1=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.9, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, weight_decay=0.1),
    "muon": lambda p: torch.optim.Muon([x for x in p if x.dim() == 2], lr=1e-2, weight_decay=0.1),
}
INPUTS = ARCHITECTURES[0].inputs()
NAMES = [name for name, _ in tiny_bert(blocks=2).named_parameters()]


def step(model, optimizer, seed, *, accumulation=1, clip=None, before_clipping=None):
    model.zero_grad()  # the optimizer may not step on all parameters
    for micro in range(accumulation):
        torch.manual_seed(10 * seed + micro)
        (model(**INPUTS).loss / accumulation).backward()
    if before_clipping is not None:
        before_clipping()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


def reference_step(model, optimizer, seed, frozen, **how):
    """A step that puts the frozen elements back by hand."""
    before = weights(model)
    parameters = dict(model.named_parameters())

    def clear():
        for name, chosen in frozen.items():
            if parameters[name].grad is not None:
                parameters[name].grad[chosen] = 0

    step(model, optimizer, seed, before_clipping=clear, **how)
    with torch.no_grad():
        for name, chosen in frozen.items():
            parameters[name][chosen] = before[name][chosen]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_boolean_mask_over_any_parameter(optimizer, data):
    """Single elements, rows and columns, under weight decay, momentum, accumulation and clipping."""
    model = tiny_bert(blocks=2)
    by_hand = twin(model)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    axis = data.draw(st.sampled_from([None, 0, 1]), label="axis")
    names = [name for name in NAMES if len(shapes[name]) > (axis or 0)]
    names = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=6, unique=True))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    density = data.draw(st.sampled_from([0.02, 0.5, 0.98]), label="density")
    slices = {}
    for name in names:
        numbers = np.flatnonzero(draw.random(Slice("", "", axis).length(shapes[name])) < density)
        if data.draw(st.booleans(), label="in one range"):
            numbers = np.arange(len(numbers))
        part = Slice(find_blocks(model).unit_of[name], f"^{re.escape(name)}$", axis, ranges=ranges_of(numbers))
        if part.size(shapes[name]) < math.prod(shapes[name]):
            slices[name] = part
    frozen = {n: torch.from_numpy(np.broadcast_to(s.frozen(n, shapes[n]), shapes[n]).copy()) for n, s in slices.items()}
    how = {"accumulation": data.draw(st.integers(1, 3)), "clip": data.draw(st.sampled_from([None, 0.1, 1.0]))}

    stack = find_blocks(model)
    mask = FreezeMask(2, slices=slices.values())
    assert FreezeMask.from_json(json.loads(json.dumps(mask.to_json()))) == mask
    assert stack.trainable_parameters(mask) == stack.total - sum(int(chosen.sum()) for chosen in frozen.values())
    start = weights(model)
    one, other = OPTIMIZERS[optimizer](list(model.parameters())), OPTIMIZERS[optimizer](list(by_hand.parameters()))
    model.train(), by_hand.train()
    with Freezer(model, stack, optimizer=one) as freezer:
        for seed in range(3):
            if seed == 1:  # momentum has built up in what freezes
                freezer.apply(mask)
                start = weights(model)
            step(model, one, seed, **how)
            reference_step(by_hand, other, seed, frozen if seed else {}, **how)
    after, expected = weights(model), weights(by_hand)
    for name, chosen in frozen.items():
        assert torch.equal(after[name][chosen], start[name][chosen]), name
    assert all(torch.equal(after[name], expected[name]) for name in after)


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), data=st.data())
def test_counts_are_those_of_the_tensor(shape, data):
    axis = data.draw(st.none() | st.integers(0, len(shape) - 1))
    length = int(np.prod(shape)) if axis is None else shape[axis]
    listed = Slice("head", "", axis, ranges=[(i, i + 1) for i in data.draw(st.sets(st.integers(0, length - 1)))])
    share = data.draw(st.floats(0, 1))
    for part in (listed, Slice("head", "", axis, "first", share=share), Slice("head", "", axis, "random", share=share)):
        frozen = np.broadcast_to(part.frozen("x", tuple(shape)), shape)
        assert int(frozen.sum()) == part.size(tuple(shape))
        assert Slice.from_json(json.loads(json.dumps(part.to_json()))) == part
    if axis is None:
        assert Slice.elements("head", "x", listed.frozen("x", tuple(shape))).ranges == listed.ranges


def test_joined_slices_of_one_parameter_are_counted_once():
    stack = find_blocks(tiny_bert())
    name = "bert.encoder.layer.0.attention.self.query.weight"
    mask = FreezeMask(4, slices=[Slice.rows("block 0", "query.weight", range(8))])
    mask |= FreezeMask(4, slices=[Slice.columns("block 0", "query.weight", range(4))])
    mask |= FreezeMask(4, slices=[Slice.elements("block 0", name, np.eye(16))])
    expected = np.eye(16, dtype=bool)
    expected[:8], expected[:, :4] = True, True
    assert stack.total - stack.trainable_parameters(mask) == expected.sum()
    assert stack.slices(mask).keys() == {name}
    whole = mask | FreezeMask(4, slices=[Slice.rows("block 0", "query.weight", range(8, 16))])
    assert name in stack.frozen(whole)
    assert not stack.slices(whole)


def test_smallest_elements_that_overlap_others_never_freeze_a_parameter_whole():
    stack = find_blocks(tiny_bert())
    slices = [
        Slice("block 0", "query.weight", None, "smallest", share=0.6),
        Slice.rows("block 0", "query.weight", range(12)),
    ]
    mask = FreezeMask(4, slices=slices)
    assert not stack.frozen(mask)
    assert stack.trainable_parameters(mask) == stack.total - 255


def test_it_trains_whole_again_when_the_freezer_is_closed():
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with Freezer(model, optimizer=optimizer) as freezer:
        freezer.apply(QUERY)
        before = weights(model)
        step(model, optimizer, 0)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    during = weights(model)
    step(model, optimizer, 1)
    assert torch.equal(during[name][:3], before[name][:3])
    assert (weights(model)[name][:3] != during[name][:3]).all()


def test_heads_are_ranges_of_rows_or_columns():
    assert Slice.heads("block 0", "query", [0, 2], size=4).ranges == ((0, 4), (8, 12))
    assert Slice.heads("block 0", "output", [1], size=4, axis=1).what == "columns 4-7"


def test_a_block_that_trains_in_part_trains():
    """It ends the prefix, and costs what a trained one costs, and a little more. Frozen whole, it is part of it."""
    stack = find_blocks(tiny_bert())
    half = FreezeMask.first(4, 2) | FreezeMask(4, slices=[Slice("block 2", "", 0, "first", share=0.5)])
    whole = FreezeMask.first(4, 2) | FreezeMask(4, slices=[Slice("block 2", "", 0, "first", share=1.0)])
    first = FreezeMask.first(4, 2)
    assert stack.prefix(half) == half.prefix == 3
    assert stack.prefix(whole) == 4
    assert str(half) == "embeddings+0-1+2[0.5 of the rows, first] | 2-3 head"
    assert stack.frozen_fraction(first) < stack.frozen_fraction(half) < stack.frozen_fraction(whole)
    costs = [predict(stack, mask) for mask in (half, first)]
    assert costs[0].forward == costs[1].forward
    assert costs[0].backward == costs[1].backward
    assert costs[0].optimizer > costs[1].optimizer
    assert optimizer_bytes(stack, half) == optimizer_bytes(stack, first)
    assert not (half | FreezeMask(4, blocks=[2])).slices
    assert half.covers(first)
    assert not first.covers(half)


def test_the_smallest_elements_are_chosen_once():
    """They are those of the start, also when the mask is applied again, and in another process from a checkpoint."""
    model = tiny_bert()
    name = "classifier.weight"
    start = weights(model)[name].flatten()
    smallest = start.abs().argsort()[: len(start) // 2]
    mask = FreezeMask(4, slices=[Slice("head", name, None, "smallest", share=0.5)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=0.01)
    with Freezer(model, optimizer=optimizer) as freezer:
        freezer.apply(mask)
        step(model, optimizer, 0)
        freezer.apply(FreezeMask(4))
        with torch.no_grad():  # now others are the smallest
            model.classifier.weight[model.classifier.weight.abs() > start[smallest].abs().max()] *= 1e-3
        freezer.apply(mask)
        step(model, optimizer, 1)
        saved = freezer.smallest_elements()
    after = weights(model)[name].flatten()
    assert torch.equal(after[smallest], start[smallest])
    assert set(after.abs().argsort()[: len(start) // 2].tolist()) != set(smallest.tolist()), "the test sees no change"
    with Freezer(model, optimizer=optimizer) as freezer:
        freezer.load_smallest_elements(saved)
        freezer.apply(mask)
        step(model, optimizer, 2)
    assert torch.equal(weights(model)[name].flatten()[smallest], start[smallest])


def test_sparse_gradients_of_an_embedding_table():
    model = tiny_bert()
    table = model.bert.embeddings.word_embeddings
    table.sparse = True
    name = "bert.embeddings.word_embeddings.weight"
    before = weights(model)[name]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with Freezer(model, optimizer=optimizer) as freezer:
        freezer.apply(FreezeMask(4, slices=[Slice.rows("embeddings", "word_embeddings", range(32))]))
        step(model, optimizer, 0)
        assert table.weight.grad.layout == torch.sparse_coo
        assert not table.weight.grad.to_dense()[:32].any()
    after = weights(model)[name]
    assert torch.equal(after[:32], before[:32])
    assert not torch.equal(after[32:], before[32:])


QUERY = FreezeMask(4, slices=[Slice.rows("block 0", "query", range(3))])


@pytest.mark.parametrize(
    ("slices", "sentence"),
    [
        ([Slice.rows("block 9", "query", [0])], "no unit 'block 9'"),
        ([Slice.rows("block 0", "query", [16])], "rows 16 cannot be frozen in .*query.weight: it has 16"),
        ([Slice("embeddings", "word", 0, "unseen")], "known to a FreezeCallback in a Trainer only"),
        ([Slice(u, "", None, "first", share=1.0) for u in ("embeddings", *(f"block {i}" for i in range(4)), "head")],
         "leaves nothing to train"),
    ],
)  # fmt: skip
def test_a_slice_that_does_not_fit_is_one_sentence(slices, sentence):
    model = tiny_bert()
    with Freezer(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)) as freezer:
        with pytest.raises(RequestError, match=sentence):
            freezer.apply(FreezeMask(4, slices=slices))
        assert freezer.mask == FreezeMask(4)


@pytest.mark.parametrize(
    "arguments",
    [{"axis": -1}, {"share": 1.5}, {"choice": "largest"}, {"ranges": ((3, 3),)}, {"ranges": ((-1, 2),)}],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=re.escape(next(iter(arguments)).removesuffix("s"))):
        Slice(**{"unit": "head", "pattern": "", "axis": 0, **arguments})


def test_without_an_optimizer_the_first_gradient_is_refused():
    """Nothing could put the values back after a step."""
    model = tiny_bert()
    with freeze(model, BottomUp(0)) as run:
        run.apply(QUERY)
        with pytest.raises(RequestError, match="pass the optimizer"):
            model(**INPUTS).loss.backward()


class Averaging(torch.optim.SGD):
    """Like a schedule-free optimizer, which moves parameters between steps."""

    def eval(self):
        pass


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=1.0), "trains copies of the parameters"),
        (lambda p: Averaging(p, lr=1.0), "changes parameters between steps"),
    ],
)
def test_an_optimizer_that_cannot_be_followed_is_refused(make, sentence):
    model = tiny_bert()
    optimizer = make(list(model.parameters()))
    with Freezer(model, optimizer=optimizer) as freezer:
        freezer.apply(BottomUp(2).initial_mask(freezer.stack))
        with pytest.raises(RequestError, match=sentence):
            freezer.apply(QUERY)
    with Freezer(model) as freezer:
        freezer.apply(QUERY)
        with pytest.raises(RequestError, match=sentence):
            freezer.attach_optimizer(optimizer)


def test_sharded_parameters_are_refused(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = tiny_bert()
        stack = find_blocks(model)
        query = model.bert.encoder.layer[0].attention.self.query
        query.weight = torch.nn.Parameter(distribute_tensor(query.weight.detach(), init_device_mesh("cpu", (1,))))
        assert isinstance(query.weight, DTensor)
        with Freezer(model, stack) as freezer, pytest.raises(RequestError, match="while FSDP shards it"):
            freezer.apply(QUERY)
    finally:
        torch.distributed.destroy_process_group()
