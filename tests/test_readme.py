"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from training import Sentences, make_trainer, tiny_bert

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_snippets():
    assert len(SNIPPETS) >= 3


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet(snippet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {
        "model": tiny_bert(),
        "args": make_trainer(tiny_bert(), tmp_path).args,
        "train": Sentences(),
        "valid": Sentences(8, seed=1),
        "new_model": lambda seed=None: tiny_bert(),
        "metrics": lambda evaluated: {"f1": float((evaluated.predictions.argmax(-1) == evaluated.label_ids).mean())},
        "batch": {"input_ids": torch.randint(5, 60, (2, 6)), "labels": torch.randint(0, 3, (2, 6))},
    }
    exec(compile(snippet, "README.md", "exec"), names)
    for said in re.findall(r"print\(.*\)  # (.*)", snippet):
        assert said in capsys.readouterr().out


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    missing = [link for link in links if not (Path(__file__).parents[1] / link).exists()]
    assert not missing
