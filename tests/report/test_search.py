"""What a search shows: the table, the plot and the page; and all of it again from the stored answer."""

import csv
import io
import json
from dataclasses import replace

import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.report.again import publish_again
from adaptivefreeze.report.search import load_search, publish_search
from adaptivefreeze.report.search_plot import blocks_named, curve
from adaptivefreeze.report.search_table import as_csv, caption, markdown, rows, terminal
from adaptivefreeze.search import DepthSearch, Outcome
from adaptivefreeze.search.statistics import certainty

SCORES = {0: (0.90, 0.91), 2: (0.905, 0.908), 4: (0.70, 0.72)}


def answer(**changes):
    sure = certainty(SCORES, 2)
    outcomes = [
        Outcome(
            f"bottom-up:{depth}",
            "depth",
            depth=depth,
            scores=scores,
            certainty=sure[depth],
            seconds=100.0 - 20 * depth,
            speedup=100 / (100 - 20 * depth),
            memory=2.0**20 * (50 - depth),
            test={"macro_f1": 0.8875} if depth < 4 else {},
        )
        for depth, scores in SCORES.items()
    ]
    beside = Outcome(
        "top-down:2,embeddings=true", "baseline", scores=(0.6, 0.62), certainty=certainty({0: (0.6, 0.62)}, 2)[0]
    )
    lost = Outcome("bottom-up:3", "depth", depth=3, error="Out of memory: <b>try less</b>.")
    found = DepthSearch(
        title="data set towns & more",
        metric="macro_f1",
        units=("seed 0", "seed 1"),
        tolerance=0.005,
        outcomes=(*outcomes, lost),
        baselines=(replace(beside, seconds=80.0, speedup=1.25),),
        best=outcomes[1],
        fast=outcomes[1],
        words=("The best k is 2.",),
        study="towns",
        storage="sqlite:///x/study.db",
    )
    return replace(found, **changes)


def test_the_table_has_a_row_a_candidate_and_says_what_was_chosen():
    text = markdown(answer())
    assert "| `2 (k*, k_fast)` | 0.9065 ± 0.0021 |" in text
    assert "| `3 (failed)` | – |" in text
    assert "| `top-down:2,embeddings=true` | 0.6100 ± 0.0141 |" in text
    assert "- The best k is 2." in text
    assert [outcome.name for outcome, _ in rows(answer())][-1] == "top-down:2,embeddings=true"


def test_with_one_seed_there_are_no_columns_of_certainty():
    one = answer(units=("seed 0",))
    assert "interval" not in markdown(one)
    assert "bootstrap" not in caption(one)


def test_csv_is_for_programs():
    table = list(csv.DictReader(io.StringIO(as_csv(answer()))))
    assert [row["scenario"] for row in table][:2] == ["bottom-up:0", "bottom-up:2"]
    assert float(table[1]["seed 1"]) == 0.908
    assert float(table[1]["mean"]) == pytest.approx(0.9065)
    assert table[3]["mean"] == ""
    assert sum(float(row["probability_best"]) for row in table[:3]) == pytest.approx(1)


def test_the_curve_has_every_score_with_its_interval_and_baselines_at_their_depth():
    shown = curve(answer())
    assert [mark.place for mark in shown.marks] == [0, 2, 4]
    assert [(name, mark.place) for name, mark in shown.chosen] == [("k* = k_fast", 2)]
    two = curve(answer(fast=answer().outcomes[2])).chosen
    assert [(name, mark.place) for name, mark in two] == [("k*", 2), ("k_fast", 4)]
    assert [(mark.place, mark.score) for mark in shown.baselines] == [(2, pytest.approx(0.61))]
    first = shown.marks[0]
    assert (first.score - first.below, first.score + first.above) == pytest.approx((0.90, 0.91))
    assert (blocks_named("top-down:3,embeddings=true"), blocks_named("head-only")) == (3, 0)


def test_all_files_are_written_and_the_page_needs_nothing_beside_it(tmp_path):
    written = publish_search(answer(), tmp_path)
    assert {path.name for path in written} == {f"search.{end}" for end in ("md", "csv", "svg", "png", "html")}
    assert all(path.stat().st_size > 100 for path in written)
    page = (tmp_path / "search.html").read_text()
    assert page.count("<svg") == 1
    assert "towns &amp; more" in page
    assert "&lt;b&gt;try less&lt;/b&gt;" in page
    assert "<script" not in page
    assert "http-equiv" not in page


def test_the_answer_is_read_again_and_published_again(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps(answer().to_json()))
    assert load_search(tmp_path) == answer()
    [(shown, written)] = publish_again([tmp_path], None)
    assert shown == answer()
    assert (tmp_path / "search.html") in written


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_what_is_no_answer_is_refused(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(RequestError, match=r"search\.json is no answer of a search"):
        load_search(tmp_path)
    assert load_search(tmp_path / "elsewhere") is None


def test_the_terminal_shows_the_same_rows():
    assert terminal(answer()).row_count == 5
