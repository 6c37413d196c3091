"""Stored runs and searches: of one folder, of several, and what is refused."""

import json
from dataclasses import replace

import pytest
from results import MODEL, TASK, failed, folder_of, made, searched

from adaptivefreeze import RequestError
from adaptivefreeze.report.load import load_runs, load_search, summarize_search


def test_several_folders_of_one_task_become_one_table(tmp_path):
    one = folder_of(tmp_path / "one", made("nothing", seconds=20.0))
    two = folder_of(tmp_path / "two", made("bottom-up:2"), failed("head-only"))
    summary = load_runs([one, two, one])
    assert [row.scenario for row in summary.rows] == ["nothing", "bottom-up:2", "head-only"]
    assert summary.rows[1].speedup.mean == 2.0


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (made("head-only", task=replace(TASK, fingerprint="0")), "data set"),
        (made("head-only", model=replace(MODEL, fingerprint="0")), "model"),
        (made("head-only", settings={"epochs": 3, "batch_size": 16}), "epochs"),
        (made("nothing"), "is in both"),
    ],
)
def test_runs_that_do_not_compare_are_refused(tmp_path, other, words):
    one, two = folder_of(tmp_path / "one", made("nothing")), folder_of(tmp_path / "two", other)
    with pytest.raises(RequestError, match=words):
        load_runs([one, two])


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
