"""Side networks: what they add to a model, on every architecture of the tests."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES
from training import tiny_bert
from transformers import LlamaConfig, LlamaForCausalLM

from adaptivefreeze import RequestError, add_side_network, find_blocks, remove_side_network
from adaptivefreeze.side import find_side_network
from adaptivefreeze.side.network import attention_mask

# Architectures that cannot have a side network, and why.
REFUSED = {
    "albert": "runs several times",
    "funnel": r"returns shape \(2, 4, 16\)",
    "resnet": "not one shape",
    "squeezebert": "not called as a module",
}
SERVED = [a for a in ARCHITECTURES if a.name not in REFUSED]
PADDED = [a for a in SERVED if set(a.inputs()) == {"input_ids", "attention_mask", "labels"}]


def outputs(model, inputs):
    with torch.no_grad():
        return [value for value in model(**inputs).values() if isinstance(value, torch.Tensor)]


def equal(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def tiny_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    return LlamaForCausalLM(config).eval()


def trained(network):
    """Give a network an output other than zero."""
    torch.nn.init.normal_(network.up.weight)
    return network


@pytest.mark.parametrize("architecture", SERVED, ids=str)
def test_an_untrained_network_changes_no_output(architecture):
    torch.manual_seed(0)
    model = architecture.build().eval()
    inputs = architecture.inputs()
    before = outputs(model, inputs)
    depth = find_blocks(model, architecture.tower).depth
    network = add_side_network(model, 32, tower=architecture.tower)
    assert equal(outputs(model, inputs), before)

    stack = find_blocks(model, architecture.tower)
    assert stack.depth == depth
    side = {name for name, _ in model.named_parameters() if "side_network." in name}
    assert len(side) == len(list(network.parameters()))
    assert {stack.unit_of[name] for name in side} == {"head"}

    trained(network)
    after = outputs(model, inputs)
    assert not equal(after, before)
    assert all(torch.isfinite(value).all() for value in after if value.is_floating_point())
    remove_side_network(model)
    assert equal(outputs(model, inputs), before)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_have_one_is_refused_and_unchanged(name):
    architecture = next(a for a in ARCHITECTURES if a.name == name)
    model = architecture.build()
    before = [n for n, _ in model.named_parameters()]
    with pytest.raises(RequestError, match=REFUSED[name]):
        add_side_network(model, 32, tower=architecture.tower)
    assert [n for n, _ in model.named_parameters()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("architecture", PADDED, ids=str)
def test_padding_changes_no_output(architecture):
    """A network adds the same to an example alone as in a wider batch, if its inputs are the same."""
    torch.manual_seed(0)
    model = architecture.build().eval()
    network = trained(add_side_network(model, 32, tower=architecture.tower))
    calls = []
    network.register_forward_hook(lambda module, args, output: calls.append((args[0], output)))
    inputs = architecture.inputs()
    outputs(model, inputs)
    for row, mask in enumerate(inputs["attention_mask"]):
        outputs(
            model, {n: v[row : row + 1, : mask.sum()] if v.dim() > 1 else v[row : row + 1] for n, v in inputs.items()}
        )
        (taps, added), (taps_alone, added_alone) = calls[0], calls[-1]
        length = min(int(mask.sum()), added_alone.shape[1])
        close = torch.allclose(taps[-1][row, :length], taps_alone[-1][0, :length], atol=1e-5)
        if close:  # in some models the hidden state itself depends on padding
            assert torch.allclose(added[row, :length], added_alone[0, :length], rtol=1e-4, atol=1e-4)


def test_a_causal_model_gets_a_causal_network():
    model = tiny_llama()
    network = trained(add_side_network(model, 32))
    assert network.config.causal
    ids = torch.arange(5, 13)[None]
    changed = ids.clone()
    changed[0, -1] = 40
    before, after = outputs(model, {"input_ids": ids})[0], outputs(model, {"input_ids": changed})[0]
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])
    assert not add_side_network(tiny_bert(), 32).config.causal


def test_packed_sequences_do_not_see_each_other():
    model = tiny_llama()
    trained(add_side_network(model, 32))
    first, second = torch.arange(5, 9), torch.arange(20, 26)
    packed = {
        "input_ids": torch.cat([first, second])[None],
        "position_ids": torch.cat([torch.arange(4), torch.arange(6)])[None],
        "use_cache": False,
    }
    together = outputs(model, packed)[0]
    alone = outputs(model, {"input_ids": second[None], "position_ids": torch.arange(6)[None], "use_cache": False})[0]
    assert torch.allclose(together[:, 4:], alone, atol=1e-5)


def test_generation_without_a_key_value_cache():
    model = tiny_llama()
    ids = torch.arange(5, 13)[None]
    expected = model.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False)
    add_side_network(model, 32)
    assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False), expected)
    with pytest.raises(RequestError, match="use_cache=False"):
        model.generate(ids, max_new_tokens=4, do_sample=False)


def test_attention_mask():
    assert attention_mask(4, None, None, causal=False) is None
    assert attention_mask(4, None, None, causal=True) is None
    padding = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    sees = attention_mask(5, padding, None, causal=False)
    assert sees.shape == (2, 5, 5)
    assert sees[0].int().tolist()[:3] == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert torch.equal(sees[1], torch.eye(5, dtype=torch.bool))  # finite even where all is padding
    causal = attention_mask(4, padding[:1], torch.tensor([[0, 1, 0, 1]]), causal=True)
    assert causal[0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_taps():
    def taps(**options):
        return add_side_network(tiny_bert(blocks=5), 32, **options).config.taps

    assert taps() == (0, 2, 4)
    assert taps(every=1) == (0, 1, 2, 3, 4)
    assert taps(every=9) == (4,)
    assert taps(taps=[1]) == (1, 4)


def test_gradients_reach_the_network_through_activation_checkpointing():
    found = []
    for checkpointing in (False, True):
        model = tiny_bert().eval()
        torch.manual_seed(1)
        network = trained(add_side_network(model, 32, dropout=0.0))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("side_network" in name or "classifier" in name)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):  # the model's own
                    module.p = 0.0
        ids = torch.arange(5, 13)[None]
        model(input_ids=ids, labels=ids % 3).loss.backward()
        found.append([p.grad for p in network.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_a_copy_of_the_model_has_a_network_of_its_own():
    model = tiny_bert().eval()
    ids = {"input_ids": torch.arange(5, 13)[None]}
    add_side_network(model, 32)
    before = outputs(model, ids)
    copied = copy.deepcopy(model)
    trained(find_side_network(copied))
    assert equal(outputs(model, ids), before)
    assert not equal(outputs(copied, ids), before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 33}, "multiple of 32"),
        ({"width": True}, "multiple of 32"),
        ({"layers": 0}, "1 or more"),
        ({"every": 0}, "must be 1 or more"),
        ({"taps": [4]}, "from 0 to 3"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_arguments(options, sentence):
    with pytest.raises(RequestError, match=sentence):
        add_side_network(tiny_bert(), **options)


def test_a_second_network_is_refused_and_the_same_one_is_kept():
    model = tiny_bert()
    network = add_side_network(model, 32)
    assert add_side_network(model, 32) is network
    with pytest.raises(RequestError, match="already has a side network of width 32"):
        add_side_network(model, 64)


def test_a_mask_of_another_form_is_refused():
    model = tiny_bert()
    add_side_network(model, 32)
    with pytest.raises(RequestError, match="attention_mask of shape"):
        model(input_ids=torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 1, 4, 4))
