"""A study's folder: where runs lie, and whose."""

import json
from dataclasses import replace

import pytest
from results import MODEL, TASK, failed, made

from adaptivefreeze import RequestError
from adaptivefreeze.comparison.folder import StudyFolder, file_name
from adaptivefreeze.comparison.settings import StudySettings

SETTINGS = StudySettings(epochs=2)


def test_a_run_lies_where_its_scenario_and_seed_say(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    folder.claim(TASK, MODEL, SETTINGS)
    assert folder.find("bottom-up:3", 0) is None
    folder.store(made("bottom-up:3"))
    assert folder.find("bottom-up:3", 0).scenario == "bottom-up:3"
    assert (tmp_path / "study" / "runs" / "bottom-up:3-s0.json").is_file()
    folder.store(failed("head-only", 1))
    assert [run.scenario for run in folder.runs()] == ["bottom-up:3", "head-only"]


@pytest.mark.parametrize(
    "scenario", ["modules:a/b", "modules:../../x", "modules:a|b*", "modules:" + "é" * 200, "modules:a\\b"]
)
def test_every_scenario_has_a_safe_name_of_its_own(tmp_path, scenario):
    folder = StudyFolder(tmp_path)
    folder.store(made(scenario))
    folder.store(made(scenario + "x"))
    assert folder.find(scenario, 0).scenario == scenario
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert "/" not in file_name(scenario)


def test_the_same_study_may_go_on_whatever_its_names(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.claim(TASK, MODEL, SETTINGS)
    before = (tmp_path / "study.json").stat().st_mtime_ns
    folder.claim(replace(TASK, dataset="../towns"), replace(MODEL, name="./tiny"), replace(SETTINGS, device="cpu"))
    assert (tmp_path / "study.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("task", "model", "settings", "words"),
    [
        (replace(TASK, fingerprint="1", dataset="villages"), MODEL, SETTINGS, "its task is towns, not villages"),
        (replace(TASK, fingerprint="1"), MODEL, SETTINGS, "other data"),
        (TASK, replace(MODEL, fingerprint="1", name="big"), SETTINGS, "its model is tiny, not big"),
        (TASK, replace(MODEL, fingerprint="1"), SETTINGS, "other starting weights"),
        (TASK, MODEL, replace(SETTINGS, epochs=3), "its epochs is 2, not 3"),
        (TASK, MODEL, replace(SETTINGS, training_arguments={"bf16": True}), "training arguments"),
    ],
)
def test_another_study_is_refused_and_nothing_written(tmp_path, task, model, settings, words):
    folder = StudyFolder(tmp_path)
    folder.claim(TASK, MODEL, SETTINGS)
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(RequestError, match=words):
        folder.claim(task, model, settings)
    assert (tmp_path / "study.json").read_bytes() == before


def test_files_of_somebody_else_are_not_written_over(tmp_path):
    (tmp_path / "table.md").write_text("mine")
    with pytest.raises(RequestError, match=r"table\.md but no study\.json"):
        StudyFolder(tmp_path).claim(TASK, MODEL, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_a_folder_with_other_things_may_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    StudyFolder(tmp_path).claim(TASK, MODEL, SETTINGS)
    assert json.loads((tmp_path / "study.json").read_text())["settings"]["epochs"] == 2


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="is a file"):
        StudyFolder(tmp_path / "file").claim(TASK, MODEL, SETTINGS)
    with pytest.raises(RequestError, match="cannot be written"):
        StudyFolder(tmp_path / "file" / "below").claim(TASK, MODEL, SETTINGS)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}'])
def test_a_damaged_study_file_is_refused(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(RequestError, match=r"study\.json"):
        StudyFolder(tmp_path).claim(TASK, MODEL, SETTINGS)


@pytest.mark.parametrize("damage", [lambda text: text[:40], lambda text: "", lambda text: text.replace(":", "")])
def test_a_damaged_study_file_says_what_is_still_there(tmp_path, damage):
    folder = StudyFolder(tmp_path)
    folder.claim(TASK, MODEL, SETTINGS)
    folder.store(made("bottom-up:3"))
    marker = tmp_path / "study.json"
    marker.write_text(damage(marker.read_text()))
    sentence = r"study.json is damaged \(.*\): choose another --output. `adaptivefreeze report .*` still shows the runs"
    with pytest.raises(RequestError, match=sentence):
        folder.claim(TASK, MODEL, SETTINGS)
    assert [run.scenario for run in folder.runs()] == ["bottom-up:3"]
