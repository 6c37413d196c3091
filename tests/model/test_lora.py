"""lora_above adapts the linear layers of the upper blocks, and no others."""

import pytest
from architectures import ARCHITECTURES
from peft import get_peft_model
from training import tiny_bert

from adaptivefreeze import FreezeMask, RequestError, find_blocks, lora_above

NAMES = ("bert", "xlm", "t5", "gpt2", "llama", "mixtral", "clip-vision", "zamba2")
CHOSEN = [a for a in ARCHITECTURES if a.name in NAMES]


@pytest.mark.parametrize("architecture", CHOSEN, ids=str)
def test_only_the_blocks_above_train(architecture):
    model = architecture.build()
    depth = architecture.depth
    adapted = get_peft_model(model, lora_above(model, depth - 1, tower=architecture.tower, r=2))
    stack = find_blocks(adapted, architecture.tower)
    training = {unit.name for unit in stack.units if any(p.trainable for p in unit.parameters)}
    assert training == {f"block {depth - 1}"}
    assert stack.prefix(FreezeMask(depth)) == depth


def test_every_linear_layer_of_the_blocks_is_adapted():
    config = lora_above(tiny_bert(), 1, r=4, lora_alpha=8, task_type="TOKEN_CLS")
    assert (config.r, config.lora_alpha, config.task_type) == (4, 8, "TOKEN_CLS")
    blocks = {name.split(".")[3] for name in config.target_modules}
    assert blocks == {"1", "2", "3"}
    assert len(config.target_modules) == 3 * 6


@pytest.mark.parametrize(
    ("k", "options", "sentence"),
    [
        (4, {}, "k must be a whole number from 0 to 3, the number of blocks without adapters, not 4"),
        (-1, {}, "not -1"),
        (True, {}, "not True"),
        ("half", {}, "not 'half'"),
        (2, {"target_modules": ["query"]}, "leave out target_modules, or use LoraConfig"),
        (2, {"layers_to_transform": [3]}, "leave out layers_to_transform"),
        (2, {"tower": "decoder"}, "no single tower named 'decoder'"),
    ],
)
def test_bad_requests(k, options, sentence):
    with pytest.raises(RequestError, match=sentence):
        lora_above(tiny_bert(), k, **options)


def test_an_adapted_model_and_one_without_linear_layers_are_refused():
    model = tiny_bert()
    with pytest.raises(RequestError, match="has adapters already"):
        lora_above(get_peft_model(model, lora_above(model, 2)), 2)
    convolutions = next(a for a in ARCHITECTURES if a.name == "resnet").build()
    with pytest.raises(RequestError, match="blocks 1 and above of ResNetForImageClassification have no linear layer"):
        lora_above(convolutions, 1)


def test_without_peft_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("adaptivefreeze.extras.find_spec", lambda module: None)
    with pytest.raises(ImportError, match=r'lora_above needs the peft extra .*pip install "adaptivefreeze\[peft\]"'):
        lora_above(tiny_bert(), 2)
