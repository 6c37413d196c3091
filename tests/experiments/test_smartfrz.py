"""Training SmartFRZ's predictor: labels, the fit, and the command at a tiny size."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import save_model, save_tags, save_texts

from adaptivefreeze import SmartFRZ
from adaptivefreeze.policies.attention import FEATURES, read_predictor

FOLDER = Path(__file__).parents[2] / "experiments" / "smartfrz"


@pytest.fixture
def part(monkeypatch):
    """part("fit"): a module of the experiment, which finds its neighbours as it does when run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("fit", "record", "train_predictor"):
        sys.modules.pop(name, None)


def random_rows(count, window, seed=0):
    return np.random.default_rng(seed).normal(size=(count, window, len(FEATURES) - 1))


@pytest.mark.parametrize("window", [1, 2, 5, 9])
def test_the_package_computes_what_torch_computes(part, window):
    fit, with_age = part("fit"), importlib.import_module("adaptivefreeze.policies.attention").with_age
    torch.manual_seed(window)
    network = fit.Network(np.array([-3.0, -1, 0.1, 0.2, 2]), np.array([1.0, 2, 0.5, 0.4, 1.5]))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    predictor = network.predictor({})
    with torch.no_grad():
        for name, value in network.state_dict().items():
            value.copy_(torch.from_numpy(getattr(predictor, name)))  # the rounded ones
        rows = [with_age(row) for row in random_rows(20, window)]
        expected = network(torch.from_numpy(np.asarray(rows))).sigmoid()
    found = [predictor.probability(row[:, :-1]) for row in rows]
    assert found == pytest.approx(expected.tolist(), abs=1e-6)
    assert max(found) - min(found) > 0.1


def test_it_learns_what_can_be_learned(part):
    """Whether the last step was small: nothing of the sort can be known from the clock."""
    fit = part("fit")
    with_age = importlib.import_module("adaptivefreeze.policies.attention").with_age

    def examples(seed):
        rows = random_rows(200, 4, seed)
        return fit.Examples(np.asarray([with_age(r) for r in rows]), rows[:, -1, 1] < 0.3, np.zeros(200, dtype=int))

    network = fit.fit(examples(0), steps=200)
    judged = fit.judge(network.predictor({}), examples(1), fit.clock_of(examples(0)))
    assert judged["accuracy"] > 0.9
    assert judged["base_rate"] == judged["clock_accuracy"] < 0.7
    assert judged["wrongly_frozen"] < 0.2


def test_cka_is_blind_to_rotation_and_scale_and_is_the_kernels_alignment(part):
    linear_cka = part("record").linear_cka
    torch.manual_seed(0)
    a, b = torch.randn(30, 5), torch.randn(30, 7)
    rotation = torch.linalg.qr(torch.randn(5, 5)).Q
    assert linear_cka(a, a @ rotation * 3 + 1) == pytest.approx(1)
    assert linear_cka(a, b) == pytest.approx(linear_cka(b, a))
    centre = torch.eye(30) - 1 / 30
    k, m = centre @ (a @ a.T) @ centre, centre @ (b @ b.T) @ centre
    assert linear_cka(a, b) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())), rel=1e-4)


def test_a_label_says_whether_the_block_is_alike_to_its_finished_self(part):
    fit, record = part("fit"), part("record")
    similarity = np.tile(np.linspace(0.5, 1, 6)[:, None], (1, 3))
    samples = np.random.default_rng(0).normal(size=(6, 3, 4))
    examples = fit.examples_of([record.Record(samples, similarity, {})], window=2, alike=0.85)
    assert examples.rows.shape == (8, 2, len(FEATURES)), "two of three blocks, moments 2 to 5"
    assert examples.finished.tolist() == [False, False, True, True] * 2
    assert examples.clock.tolist() == [3, 5, 6, 8] * 2


def test_the_command_makes_a_predictor_that_the_policy_reads(part, tmp_path, capsys):
    model, seen = save_model(tmp_path / "model", blocks=3), save_tags(tmp_path / "people", train=12)
    unseen = save_texts(tmp_path / "texts", train=12)
    output = tmp_path / "predictor.json"
    options = {
        "--output": [output], "--records": [tmp_path / "kept"], "--model": [model], "--dataset": [seen],
        "--unseen": [unseen], "--epochs": [2], "--batch-size": [2], "--seeds": [0], "--held-out-seeds": [1],
        "--learning-rates": [1e-2], "--window": [3], "--intervals": [6], "--alike": [0.999],
    }  # fmt: skip
    words = [str(word) for name, values in options.items() for word in (name, *values)]
    command = part("train_predictor").main
    command(words)
    assert capsys.readouterr().out.count("…") == 3
    provenance = read_predictor(str(output)).provenance
    assert provenance["training"] == {"runs": 1, "examples": 16, "finished": provenance["training"]["finished"]}
    assert set(provenance["held_out"]) == {"held-out seeds", "texts"}
    for judged in provenance["held_out"].values():
        assert judged["examples"] == 16
        assert 0 <= judged["accuracy"] <= 1
        assert 0.5 <= judged["base_rate"] <= 1
    assert str(tmp_path) not in output.read_text()
    assert "--dataset people --unseen texts --model model --seeds 0 --held-out-seeds 1" in provenance["command"]
    assert str(SmartFRZ(window=3, predictor=str(output))).startswith("smartfrz:window=3,predictor=")

    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 3
    before = output.read_text()
    output.unlink()
    command(words)
    assert "…" not in capsys.readouterr().out, "what is recorded is not trained again"
    assert output.read_text() == before
    assert json.loads(before)["provenance"] == provenance
