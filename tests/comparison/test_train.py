"""train: one model saved with its tokenizer and result."""

import json

import pytest
from transformers import pipeline

from adaptivefreeze import BottomUp, Nothing, RequestError, parse_policy
from adaptivefreeze.comparison import FailedRun, Interrupted, ProgressListener, read_run, train


def test_what_was_trained_can_be_used_from_its_folder(task, settings, tmp_path):
    run = train(task, BottomUp(2), 1, settings=settings, output=tmp_path / "out")
    stored = read_run(tmp_path / "out" / "result.json")
    assert json.dumps(stored.to_json()) == json.dumps(run.to_json())
    assert (stored.scenario, stored.seed) == ("bottom-up:2", 1)
    tag = pipeline("token-classification", model=str(tmp_path / "out"))
    assert {found["entity"] for found in tag("Ada sees Oslo")} <= set(task.labels)


def test_a_folder_that_is_not_empty_is_refused_without_force(task, settings, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="not empty"):
        train(task, Nothing(), settings=settings, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    train(task, Nothing(), settings=settings, output=tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("policy", ["bottom-up:9", "no-such"])
def test_a_wrong_policy_leaves_no_folder(task, settings, tmp_path, policy):
    with pytest.raises(RequestError):
        train(task, parse_policy(policy), settings=settings, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_training_keeps_its_reason_and_saves_no_model(task, settings, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("transformers.Trainer.training_step", fail)
    run = train(task, Nothing(), settings=settings, output=tmp_path / "out")
    assert isinstance(run, FailedRun)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]


def test_ctrl_c_saves_nothing(task, settings, tmp_path):
    class Impatient(ProgressListener):
        def stepped(self, done, total, remaining):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="nothing was saved"):
        train(task, Nothing(), settings=settings, output=tmp_path / "out", progress=Impatient())
    assert not (tmp_path / "out").exists()
