"""The files of a report, and where they go."""

import csv
import json
from dataclasses import replace

import pytest
from results import CHANGING, MODEL, UNFROZEN, folder_of, made, searched

from adaptivefreeze import RequestError
from adaptivefreeze.report.load import load_runs, summarize_search
from adaptivefreeze.report.publish import choose_folder, publish, publish_folders, read_published
from adaptivefreeze.report.summary import summarize_runs


def test_publish_writes_every_file_and_nothing_else(tmp_path):
    folder_of(tmp_path, made("nothing"), made())
    written = publish(load_runs([tmp_path]), tmp_path)
    assert [path.name for path in written] == ["report.html", "table.md", "table.csv", "table.tex"]
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
    written = publish([summarize_search(searched())], tmp_path)
    assert {path.name for path in written} == {f"search.{end}" for end in ("md", "csv", "tex", "html")}
    assert all(path.stat().st_size > 100 for path in written)
    page = (tmp_path / "search.html").read_text()
    assert "towns &amp; more" in page
    assert "&lt;b&gt;try less&lt;/b&gt;" in page


def test_figures_are_written_on_request(tmp_path):
    summary = summarize_runs([made("nothing", seconds=20.0), made("autofreeze", timeline=CHANGING)])
    names = {path.name for path in publish([summary], tmp_path, figures=True) if path.parent.name == "figures"}
    keys = ("quality-time", "learning-curves", "quality-memory", "prediction", "freeze-map-1")
    assert names == {f"{key}.{end}" for key in keys for end in ("svg", "png")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    assert (tmp_path / "figures" / "quality-time.png").read_bytes().startswith(b"\x89PNG")


def test_published_scores_are_drawn_beside_those_of_the_depths(tmp_path):
    (tmp_path / "paper.csv").write_text("scenario,macro_f1\nbottom-up:2,88.5\n")
    published = read_published(tmp_path / "paper.csv")
    assert published == {"bottom-up:2": pytest.approx(0.885)}
    folder_of(tmp_path / "study", made("nothing", timeline=UNFROZEN), made("bottom-up:2"))
    ((_, written),) = publish_folders([tmp_path / "study"], None, published=published)
    assert "bottom-up, published" in written[0].read_text()


@pytest.mark.parametrize("text", ["scenario,f1\na,3\n", "scenario,macro_f1\na,high\n", "scenario,macro_f1\na\n"])
def test_a_file_without_published_scores_is_refused(tmp_path, text):
    (tmp_path / "paper.csv").write_text(text)
    with pytest.raises(RequestError, match="no CSV file with the columns scenario and macro_f1"):
        read_published(tmp_path / "paper.csv")


def test_several_studies_share_the_files_of_a_report(tmp_path):
    one = folder_of(tmp_path / "one", made("nothing"))
    two = folder_of(tmp_path / "two", made("nothing", model=replace(MODEL, name="other", fingerprint="0")))
    ((summaries, written),) = publish_folders([one, two], tmp_path / "both")
    assert [summary.name for summary in summaries] == ["one", "two"]
    assert [row["study"] for row in csv.DictReader((tmp_path / "both" / "table.csv").open())] == ["one", "two"]
    page = written[0].read_text()
    assert page.count('class="answer"') == 2
    assert "one and two: scores compare, times do not" in page


def test_a_stored_search_is_published_again(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps(searched().to_json()))
    [((shown,), written)] = publish_folders([tmp_path], None)
    assert shown == summarize_search(searched())
    assert (tmp_path / "search.html") in written


def test_a_folder_with_runs_and_a_search_has_both_reports(tmp_path):
    folder_of(tmp_path, made("nothing"))
    (tmp_path / "search.json").write_text(json.dumps(searched().to_json()))
    assert len(publish_folders([tmp_path, tmp_path], None)) == 2
    assert (tmp_path / "search.html").is_file()
    assert (tmp_path / "report.html").is_file()
