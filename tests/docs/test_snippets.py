"""The Python snippets of the README and the guides run, page by page, as they stand there."""

import re
import sys
from types import ModuleType

import pytest
import torch
from docs.pages import GUIDES, blocks, name_of
from training import Sentences, make_trainer, tiny_bert

from adaptivefreeze.policies import registry

WITH_SNIPPETS = [path for path in GUIDES if any(block.language == "python" for block in blocks(path))]


def names(folder):
    """What the snippets take as given: a model, data, arguments."""
    return {
        "model": tiny_bert(),
        "new_model": lambda seed=None: tiny_bert(),
        "args": make_trainer(tiny_bert(), folder).args,
        "train": Sentences(),
        "valid": Sentences(8, seed=1),
        "metrics": lambda evaluated: {"f1": float((evaluated.predictions.argmax(-1) == evaluated.label_ids).mean())},
        "batch": {"input_ids": torch.randint(5, 60, (2, 6)), "labels": torch.randint(0, 3, (2, 6))},
    }


def names_of_integrations(folder):
    """A language model, a sentence encoder and texts for both."""
    from architectures import ARCHITECTURES
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel, BertTokenizerFast

    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), eos_token="[SEP]")
    tokenizer.save_pretrained(folder / "encoder")
    BertModel(tiny_bert().config).save_pretrained(folder / "encoder")
    return {
        "language_model": next(a for a in ARCHITECTURES if a.name == "llama").build(),
        "tokenizer": tokenizer,
        "texts": Dataset.from_dict({"text": ["a b c", "c d e", "e f g", "g h a"]}),
        "sentence_model": SentenceTransformer(str(folder / "encoder"), device="cpu"),
        "pairs": Dataset.from_dict({"anchor": ["a b", "c d", "e f", "g h"], "positive": ["a", "c d d", "e", "h g"]}),
    }


def test_most_guides_have_snippets():
    assert len(WITH_SNIPPETS) >= 8


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=name_of)
def test_the_snippets_of_a_page_run_in_order(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    module = ModuleType("snippets")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(names(tmp_path))
    if page.name == "integrations.md":
        vars(module).update(names_of_integrations(tmp_path))
    for block in blocks(page):
        if block.language != "python":
            continue
        capsys.readouterr()
        exec(compile("\n" * (block.line - 1) + block.text, name_of(page), "exec"), vars(module))
        printed = capsys.readouterr().out
        for expected in re.findall(r"print\(.*\)  # (.*)", block.text):
            assert expected in printed
