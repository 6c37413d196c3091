"""Delta checkpoints: saved, loaded onto the same base, and refused on another."""

import json

import pytest
import torch
from training import make_trainer, moved, tiny_bert, weights

from adaptivefreeze import BottomUp, FreezeCallback, GradualUnfreezing, RequestError, load_delta, save_delta
from adaptivefreeze.side import find_side_network
from adaptivefreeze.side.delta import DELTA_FILE, TENSORS_FILE

SETTINGS = {"num_train_epochs": 2, "save_strategy": "epoch"}


def train(folder, policy, **options):
    callback = FreezeCallback(policy, save="delta", cache=True)
    trainer = make_trainer(tiny_bert(), folder, [callback], **{**SETTINGS, **options})
    trainer.train()
    return trainer


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.name != "freezing.safetensors")


@pytest.mark.parametrize("policy", ["side:width=32", "bottom-up:3", GradualUnfreezing(), "interleaved:2"], ids=str)
def test_saved_and_loaded(tmp_path, policy):
    trainer = train(tmp_path, policy)
    trainer.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final" / "model.safetensors").exists()
    assert (tmp_path / "final" / "config.json").exists()
    loaded = load_delta(tiny_bert(), tmp_path / "final")
    assert not moved(weights(trainer.model), weights(loaded))
    assert (find_side_network(loaded) is not None) == (str(policy) == "side:width=32")


def test_only_what_was_trained_is_stored(tmp_path):
    trainer = train(tmp_path, BottomUp(3))
    stored = json.loads((tmp_path / "checkpoint-12" / DELTA_FILE).read_text())["trained"]
    assert stored == sorted(n for n, _ in trainer.model.named_parameters() if "layer.3" in n or "classifier" in n)
    full = sum(p.numel() * 4 for p in trainer.model.parameters())
    assert size(tmp_path / "checkpoint-12") < 0.5 * full


def test_what_was_trained_before_it_froze_is_stored_too(tmp_path):
    trainer = train(tmp_path, "random-prefix")
    loaded = load_delta(tiny_bert(), tmp_path / "checkpoint-12")
    assert not moved(weights(trainer.model), weights(loaded))


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    trainer = train(
        tmp_path,
        "side:width=32",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        learning_rate=1e-2,
    )
    best = load_delta(tiny_bert(), trainer.state.best_model_checkpoint)
    assert not moved(weights(trainer.model), weights(best))


def test_another_base_is_refused_and_unchanged(tmp_path):
    train(tmp_path, "side:width=32")
    other = tiny_bert(seed=1)
    before = weights(other)
    with pytest.raises(RequestError, match="another base model"):
        load_delta(other, tmp_path / "checkpoint-12")
    assert not moved(before, weights(other))
    assert find_side_network(other) is None


def test_another_head_is_refused(tmp_path):
    model = tiny_bert()
    save_delta(model, tmp_path, names=["classifier.weight", "classifier.bias"])
    model.classifier = torch.nn.Linear(16, 5)
    with pytest.raises(RequestError, match=r"classifier.*shape \(3.*\(5"):
        load_delta(model, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / DELTA_FILE).unlink(),
        lambda folder: (folder / DELTA_FILE).write_text("{"),
        lambda folder: (folder / DELTA_FILE).write_text("[]"),
        lambda folder: (folder / TENSORS_FILE).unlink(),
        lambda folder: (folder / TENSORS_FILE).write_bytes(b"x" * 40),
    ],
)
def test_damaged(tmp_path, damage):
    save_delta(tiny_bert(), tmp_path)
    damage(tmp_path)
    with pytest.raises(RequestError, match="delta checkpoint"):
        load_delta(tiny_bert(), tmp_path)


def test_wrong_requests(tmp_path):
    with pytest.raises(RequestError, match="no parameter nothing"):
        save_delta(tiny_bert(), tmp_path, names=["nothing"])
    with pytest.raises(RequestError, match="empty"):
        save_delta(tiny_bert(), tmp_path, names=[])
    with pytest.raises(RequestError, match="save must be"):
        FreezeCallback("nothing", save="some")
