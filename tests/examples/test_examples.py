"""Each example runs to its end with `--smoke`, in one process."""

import runpy
import sys
from pathlib import Path

import pytest

from adaptivefreeze.policies import registry

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("[!_]*.py"))
EXPECTED = {
    "ner.py": "test entity F1",
    "sentiment.py": "bottom-up:0.5: test accuracy",
    "validation_driven.py": "step 0:",
    "plain_loop.py": "restored: True",
    "custom_policy.py": "the head has trained for",
    "depth_search.py": "best validation accuracy",
    "causal_lm_lora.py": "of the examples found",
}


def test_every_example_is_listed():
    assert set(EXAMPLES) == set(EXPECTED)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(sys, "argv", [name, "--smoke"])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert EXPECTED[name] in capsys.readouterr().out
