"""Stored runs and searches: of one folder, of several, and what is refused."""

import json
from dataclasses import replace

import pytest
from results import MODEL, TASK, failed, folder_of, made, searched

from adaptivefreeze import RequestError
from adaptivefreeze.comparison.folder import StudyFolder
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.report.formats import markdown
from adaptivefreeze.report.load import load_runs, load_search, summarize_search
from adaptivefreeze.report.side_by_side import comparable


def test_several_folders_of_one_task_become_one_table(tmp_path):
    one = folder_of(tmp_path / "one", made("nothing", seconds=20.0))
    two = folder_of(tmp_path / "two", made("bottom-up:2"), failed("head-only"))
    (summary,) = load_runs([one, two, one])
    assert summary.name == "one, two"
    assert [row.scenario for row in summary.rows] == ["nothing", "bottom-up:2", "head-only"]
    assert summary.rows[1].speedup.mean == 2.0


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (made("head-only", task=replace(TASK, dataset="rivers", fingerprint="0")), "neither scores nor times compare"),
        (made("head-only", model=replace(MODEL, fingerprint="0")), "scores compare, times do not"),
        (made("head-only", settings={"epochs": 3, "batch_size": 16}), "epochs 2 / 3"),
        (made("head-only", environment={"device": "cuda"}), "device cpu / cuda"),
        (made("nothing"), "everything compares"),
    ],
)
def test_runs_that_do_not_share_a_table_are_studies_side_by_side(tmp_path, other, words):
    one, two = folder_of(tmp_path / "one", made("nothing")), folder_of(tmp_path / "two", other)
    summaries = load_runs([one, two])
    assert [summary.name for summary in summaries] == ["one", "two"]
    (sentence,) = comparable(summaries)
    assert sentence.startswith("one and two: ")
    assert words in sentence


def test_an_unfinished_study_names_the_runs_that_are_missing(tmp_path):
    folder_of(tmp_path, made("nothing"))
    StudyFolder(tmp_path).plan([("nothing", 0), ("bottom-up:2", 0), ("bottom-up:2", 1)])
    (summary,) = load_runs([tmp_path])
    assert "2 of 3 runs are missing: bottom-up:2 (seed 0), bottom-up:2 (seed 1)." in summary.warnings[0]
    assert "no answer yet" in summary.answer
    StudyFolder(tmp_path).store(made("bottom-up:2"))
    StudyFolder(tmp_path).store(made("bottom-up:2", 1))
    assert not any("unfinished" in warning for warning in load_runs([tmp_path])[0].warnings)


def test_a_plan_grows_and_the_study_stays_the_same(tmp_path):
    folder = StudyFolder(folder_of(tmp_path, made("nothing")))
    folder.plan([("nothing", 0)])
    folder.plan([("nothing", 1), ("nothing", 0)])
    assert folder.missing([made("nothing")]) == [("nothing", 1)]
    folder.claim(TASK, MODEL, StudySettings())


def test_an_unfinished_search_shows_validation_scores(tmp_path):
    folder_of(tmp_path, made("nothing", metrics=None), made("bottom-up:2", metrics=None))
    (tmp_path / "study.db").touch()
    (summary,) = load_runs([tmp_path])
    assert "This search is unfinished" in summary.warnings[0]
    assert any("2 of 2 runs have no scores on the test split" in warning for warning in summary.warnings)
    assert "0.8000" in markdown([summary])
    assert "validation macro F1 +0.0 points" in summary.answer


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(RequestError, match="holds no runs"):
        load_runs([tmp_path])


def test_a_damaged_run_is_named(tmp_path):
    folder_of(tmp_path, made())
    (tmp_path / "runs" / "bottom-up:2-s0.json").write_text('{"schema": 1, "scenario": "x"}')
    with pytest.raises(RequestError, match=r"bottom-up:2-s0\.json"):
        load_runs([tmp_path])


def test_the_result_of_a_search_is_read_again(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps(searched().to_json()))
    assert load_search(tmp_path) == summarize_search(searched())


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_a_damaged_search_is_refused(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(RequestError, match=r"search\.json is not a search result"):
        load_search(tmp_path)
    assert load_search(tmp_path / "elsewhere") is None
