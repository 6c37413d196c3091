"""find_blocks: every parameter is in one unit, and units follow the forward pass, on every architecture."""

import pytest
import torch
from architectures import ARCHITECTURES, SMALL, language_batch
from torch import nn
from training import tiny_bert
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

from adaptivefreeze import RequestError, find_blocks, freeze
from adaptivefreeze.model.trace import trace_forward


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_parameter_belongs_to_exactly_one_unit(architecture):
    model = architecture.build()
    stack = find_blocks(model, architecture.tower)
    names = [p.name for unit in stack.units for p in unit.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(names) == len(set(names))
    assert stack.total == sum(p.numel() for p in model.parameters())
    assert stack.depth == architecture.depth
    assert all(unit.size > 0 for unit in stack.units[:-1])
    assert stack.probed


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_embeddings_feed_the_blocks_and_the_head_does_not(architecture):
    """The gradient of the output of the last block reaches every unit below the head, and not the head."""
    model = architecture.build().eval()
    stack = find_blocks(model, architecture.tower)
    outputs = []
    last = model.get_submodule(stack.blocks[-1].modules[-1])
    forward = last.forward
    last.forward = lambda *args, **kwargs: outputs.append(forward(*args, **kwargs)) or outputs[-1]  # hooks may not run
    model.requires_grad_(True)
    model(**architecture.inputs())
    values = outputs[-1].values() if isinstance(outputs[-1], dict) else outputs[-1]
    hidden = values if isinstance(values, torch.Tensor) else next(iter(values))
    hidden.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    head = {p.name for p in stack.units[-1].parameters}
    if architecture.name != "bart-decoder":  # the encoder feeds the blocks of the decoder and is part of the head
        assert not head & reached
    for unit in stack.units[:-1]:
        assert {p.name for p in unit.parameters} & reached


def test_finding_changes_nothing():
    model = tiny_bert().train()
    model.bert.encoder.layer[1].eval()
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    find_blocks(model)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_shared_parameters_are_reported():
    stacks = {a.name: find_blocks(a.build(), a.tower) for a in ARCHITECTURES if a.name in ("albert", "gpt2")}
    assert "runs 3 times" in stacks["albert"].shared[0]
    assert "lm_head.weight" in stacks["gpt2"].shared[0]
    assert stacks["gpt2"].unit_of["transformer.wte.weight"] == "embeddings"


def test_several_towers_have_to_be_named():
    small = {**SMALL, "max_position_embeddings": 32}
    model = CLIPModel(CLIPConfig(text_config=small, vision_config={**SMALL, "image_size": 16, "patch_size": 8}))
    with pytest.raises(RequestError, match="text_model, vision_model"):
        find_blocks(model)
    with pytest.raises(RequestError, match=r"no single tower named 'audio'.*text_model, vision_model"):
        find_blocks(model, "audio")
    assert find_blocks(model, "text_model").tower == "text_model"


def test_no_transformers_model_is_refused():
    with pytest.raises(RequestError, match="Sequential is not a transformers model"):
        find_blocks(nn.Sequential(nn.Linear(2, 2)))


class _Backwards(BertModel):
    """A BERT that runs its layers from the last to the first."""

    def __init__(self, config, when="always"):
        super().__init__(config)
        self.when = when

    def forward(self, input_ids=None, **kwargs):
        kwargs.pop("use_cache", None)
        layers = self.encoder.layer
        if self.when == "always" or input_ids.shape[0] > 1:
            self.encoder.layer = nn.ModuleList(reversed(layers))
        try:
            return super().forward(input_ids, **kwargs)
        finally:
            self.encoder.layer = layers


def test_blocks_that_do_not_run_in_order_are_refused():
    with pytest.raises(RequestError, match="runs block 1 after block 2"):
        find_blocks(_Backwards(BertConfig(**SMALL)))


def test_lists_that_are_no_sub_layers_do_not_hide_the_blocks():
    """As in Gemma3n: as many projections before and after the blocks as there are blocks."""

    class Projected(BertModel):
        def __init__(self, config):
            super().__init__(config)
            self.before = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.layers = self.encoder.layer
            self.after = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.encoder = None

        def forward(self, input_ids=None, **_):
            hidden = self.embeddings(input_ids=input_ids)
            for group in (self.before, self.layers, self.after):
                for module in group:
                    hidden = module(hidden)
            return hidden

    stack = find_blocks(Projected(BertConfig(**SMALL)))
    assert [unit.modules for unit in stack.blocks] == [("layers.0",), ("layers.1",), ("layers.2",)]
    assert stack.unit_of["before.0.weight"] == "embeddings"
    assert stack.unit_of["after.0.weight"] == "head"


def test_blocks_that_never_run_are_refused():
    class Idle(BertModel):
        def forward(self, input_ids=None, **_):
            return self.embeddings(input_ids=input_ids)

    with pytest.raises(RequestError, match="runs none of its 3 blocks"):
        find_blocks(Idle(BertConfig(**SMALL)))


def test_the_order_is_checked_on_the_first_real_batch():
    """The sample of one row runs in order and the real batch does not: an error before the first update."""
    model = _Backwards(BertConfig(**SMALL), when="real batches")
    run = freeze(model, "bottom-up:1")
    batch = language_batch()
    with pytest.raises(RequestError, match="ran block 1 after block 2"):
        model(input_ids=batch["input_ids"])
    run.restore()


def test_the_probe_raises_what_the_model_raises():
    model = tiny_bert().bert
    with pytest.raises(IndexError):
        trace_forward(model, [(layer,) for layer in model.encoder.layer], {"input_ids": torch.tensor([[10**6]])})
    assert not any(m._forward_hooks for m in model.modules())
