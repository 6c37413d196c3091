"""Results: there and back, tolerant of what is new, whole or not at all."""

import json
import os
from dataclasses import replace

import pytest
from results import failed, made

from adaptivefreeze import RequestError
from adaptivefreeze.comparison.result import FailedRun, RunResult, read_run, write_json

CONTRACT = {
    "": "schema scenario seed cache task model metrics validation train_loss train_seconds eval_seconds steps "
    "samples_per_second trainable_parameters frozen_fraction predicted_step_ratio peak_memory_bytes energy_joules "
    "timeline environment",
    "task": "kind dataset fingerprint train_examples labels",
    "model": "name blocks parameters",
    "metrics": "accuracy macro_f1 weighted_f1 entity_f1 per_class",
}


@pytest.mark.parametrize(
    "run", [made(), made(energy_joules=12.5, validation=()), failed()], ids=["run", "bare", "failed"]
)
def test_a_stored_run_is_read_back_equal(tmp_path, run):
    write_json(tmp_path / "run.json", run.to_json())
    back = read_run(tmp_path / "run.json")
    assert json.dumps(back.to_json()) == json.dumps(run.to_json())
    assert type(back) is type(run)


def test_the_file_has_every_field_of_the_contract():
    value = made().to_json()
    for part, fields in CONTRACT.items():
        assert set(fields.split()) <= set(value[part] if part else value), part
    assert {"step", "epoch", "macro_f1", "seconds"} <= set(value["validation"][0])
    assert value["schema"] == 1
    assert (value["status"], failed().to_json()["status"]) == ("done", "failed")


@pytest.mark.parametrize(
    ("mask", "reason", "full"),
    [
        ("- | embeddings 0-3 head", "static", True),
        ("- | embeddings 0-3 head", "start", False),
        ("embeddings+0-1 | 2-3 head", "static", False),
    ],
)
def test_full_fine_tuning_of_earlier_results_is_recognized_by_the_timeline(mask, reason, full):
    value = made().to_json()
    del value["full_fine_tuning"]
    value["timeline"] = [{"step": 0, "mask": mask, "reason": reason}]
    assert RunResult.from_json(value).full_fine_tuning is full


def test_unknown_keys_are_passed_over(tmp_path):
    value = made().to_json()
    value["from_the_future"] = 1
    for part in ("task", "model", "metrics"):
        value[part]["from_the_future"] = {}
    value["validation"][0]["from_the_future"] = []
    assert RunResult.from_json(value) == RunResult.from_json(made().to_json())


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(schema=2),
        lambda value: value.pop("schema"),
        lambda value: value.pop("train_seconds"),
        lambda value: value.pop("task"),
        lambda value: value["task"].pop("fingerprint"),
        lambda value: value.update(metrics=3),
        lambda value: value.pop("metrics"),
    ],
)
def test_another_schema_or_a_missing_field_is_refused_with_the_file_named(tmp_path, change):
    value = made().to_json()
    change(value)
    write_json(tmp_path / "odd.json", value)
    with pytest.raises(RequestError, match=r"odd\.json is not a result"):
        read_run(tmp_path / "odd.json")


def test_a_run_that_did_not_look_at_the_test_split_has_no_metrics(tmp_path):
    write_json(tmp_path / "trial.json", made(metrics=None).to_json())
    assert read_run(tmp_path / "trial.json").metrics is None


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1', "\x00"])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(RequestError, match=r"odd\.json"):
        read_run(tmp_path / "odd.json")


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, made().to_json())
    before = path.read_bytes()

    def fail(*args):
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="full"):
            write_json(path, failed().to_json())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_number_that_json_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "run.json", replace(made(), train_loss=float("nan")).to_json())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_keeps_its_sentence():
    assert FailedRun.from_json(failed(error="Why.").to_json()).error == "Why."
