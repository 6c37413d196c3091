"""Reports from stored runs: of one folder, of several, and what is refused."""

from dataclasses import replace

import pytest
from results import MODEL, TASK, failed, made

from adaptivefreeze import RequestError
from adaptivefreeze.comparison.folder import StudyFolder
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.report.publish import choose_folder, publish
from adaptivefreeze.report.stored import load


def folder_of(path, *runs):
    folder = StudyFolder(path)
    folder.claim(TASK, MODEL, StudySettings())
    for run in runs:
        folder.store(run)
    return path


def test_several_folders_of_one_task_become_one_table(tmp_path):
    one = folder_of(tmp_path / "one", made("nothing", seconds=20.0))
    two = folder_of(tmp_path / "two", made("bottom-up:2"), failed("head-only"))
    summary = load([one, two, one])
    assert [row.scenario for row in summary.rows] == ["nothing", "bottom-up:2", "head-only"]
    assert summary.rows[1].speedup.mean == 2.0


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (made("head-only", task=replace(TASK, fingerprint="0")), "data set"),
        (made("head-only", model=replace(MODEL, fingerprint="0")), "model"),
        (made("head-only", settings={"epochs": 3, "batch_size": 16}), "epochs"),
        (made("nothing"), "lies in"),
    ],
)
def test_runs_that_do_not_compare_are_refused(tmp_path, other, words):
    one, two = folder_of(tmp_path / "one", made("nothing")), folder_of(tmp_path / "two", other)
    with pytest.raises(RequestError, match=words):
        load([one, two])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(RequestError, match="holds no runs"):
        load([tmp_path])


def test_a_damaged_run_is_named(tmp_path):
    folder_of(tmp_path, made())
    (tmp_path / "runs" / "bottom-up:2-s0.json").write_text('{"schema": 1, "scenario": "x"}')
    with pytest.raises(RequestError, match=r"bottom-up:2-s0\.json"):
        load([tmp_path])


def test_publish_writes_every_file_and_nothing_else(tmp_path):
    folder_of(tmp_path, made("nothing"), made())
    written = publish(load([tmp_path]), tmp_path)
    assert sorted(path.name for path in written) == ["plot.png", "plot.svg", "report.html", "table.csv", "table.md"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written} | {"study.json", "runs"}


def test_a_report_of_several_folders_never_goes_over_another_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = folder_of(tmp_path / "one", made("nothing")), folder_of(tmp_path / "two", made())
    other = folder_of(tmp_path / "other", made())
    assert choose_folder((one,), None) == one
    assert str(choose_folder((one, two), None)) == "runs/report"
    assert choose_folder((one, two), two) == two
    with pytest.raises(RequestError, match="another study"):
        choose_folder((one, two), other)
