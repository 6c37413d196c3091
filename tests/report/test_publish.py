"""The files of a report, and where they go."""

import csv
import json
from dataclasses import replace

import pytest
from results import CHANGING, MODEL, UNFROZEN, folder_of, made, searched

from adaptivefreeze import RequestError
from adaptivefreeze.report.formats import markdown
from adaptivefreeze.report.load import load_runs, summarize_search
from adaptivefreeze.report.publish import choose_folder, publish, publish_folders
from adaptivefreeze.report.published import Published, beside, read_published
from adaptivefreeze.report.summary import summarize_runs


def test_publish_writes_every_file_and_nothing_else(tmp_path):
    folder_of(tmp_path, made("nothing"), made())
    written = publish(load_runs([tmp_path]), tmp_path)
    assert [path.name for path in written] == ["report.html", "table.md", "table.csv", "table.tex", "classes.csv"]
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
    assert published == {"bottom-up:2": Published(pytest.approx(0.885))}
    folder_of(tmp_path / "study", made("nothing", timeline=UNFROZEN), made("bottom-up:2"))
    ((_, written),) = publish_folders([tmp_path / "study"], None, published=published)
    assert "bottom-up, published" in written[0].read_text()


def test_published_figures_stand_beside_those_of_the_runs(tmp_path):
    (tmp_path / "paper.csv").write_text(
        "scenario,macro_f1,accuracy,train_seconds\nbottom-up:0,90,97,200\nbottom-up:2,88,96.5,100\n"
        "bottom-up:4,50,91,50\ntop-down:0,90,,180\n"
    )
    published = read_published(tmp_path / "paper.csv")
    summary = summarize_runs([made("nothing", seconds=30.0, timeline=UNFROZEN), made("bottom-up:2", macro_f1=0.8)])
    pairs = beside(summary, published)
    assert [(pair.scenario, pair.row.scenario, pair.speedup) for pair in pairs] == [
        ("bottom-up:0", "nothing", 1.0), ("bottom-up:2", "bottom-up:2", 2.0), ("top-down:0", "nothing", 1.0),
    ]  # fmt: skip
    text = markdown([summary], published)
    assert "| `bottom-up:2` | 3.00 | 2.00 | 97.0 | 96.5 | 80.0 | 88.0 | 96.0 | – |" in text
    assert "bottom-up:4" not in text


def test_f1_per_class_has_a_file(tmp_path):
    publish([summarize_runs([made("nothing", 0), made("nothing", 1), made()])], tmp_path)
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert [(row["class"], row["support"], row["scenario"]) for row in rows] == [
        ("LOC", "7", "nothing"), ("LOC", "7", "bottom-up:2"),
    ]  # fmt: skip
    assert float(rows[0]["f1"]) == pytest.approx(0.85)


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
