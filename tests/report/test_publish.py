"""The files of a report, and where they go."""

import json

import pytest
from results import folder_of, made, searched

from adaptivefreeze import RequestError
from adaptivefreeze.report.load import load_runs, summarize_search
from adaptivefreeze.report.publish import choose_folder, publish, publish_folders


def test_publish_writes_every_file_and_nothing_else(tmp_path):
    folder_of(tmp_path, made("nothing"), made())
    written = publish(load_runs([tmp_path]), tmp_path)
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


def test_the_page_of_a_search_needs_no_other_file(tmp_path):
    written = publish(summarize_search(searched()), tmp_path)
    assert {path.name for path in written} == {f"search.{end}" for end in ("md", "csv", "svg", "png", "html")}
    assert all(path.stat().st_size > 100 for path in written)
    page = (tmp_path / "search.html").read_text()
    assert page.count("<svg") == 1
    assert "towns &amp; more" in page
    assert "&lt;b&gt;try less&lt;/b&gt;" in page
    assert "<script" not in page
    assert "http-equiv" not in page


def test_a_stored_search_is_published_again(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps(searched().to_json()))
    [(shown, written)] = publish_folders([tmp_path], None)
    assert shown == summarize_search(searched())
    assert (tmp_path / "search.html") in written


def test_a_folder_with_runs_and_a_search_has_both_reports(tmp_path):
    folder_of(tmp_path, made("nothing"))
    (tmp_path / "search.json").write_text(json.dumps(searched().to_json()))
    assert len(publish_folders([tmp_path, tmp_path], None)) == 2
    assert (tmp_path / "search.html").is_file()
    assert (tmp_path / "report.html").is_file()
