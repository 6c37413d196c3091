"""The HTML page: it is self-contained, and it escapes all text."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

from results import TASK, failed, folder_of, made

from adaptivefreeze import FreezeMask, Timeline
from adaptivefreeze.model.timeline import Change
from adaptivefreeze.report.load import load_runs
from adaptivefreeze.report.page import render
from adaptivefreeze.report.publish import publish
from adaptivefreeze.report.summary import summarize_runs


def page(*runs):
    return render([summarize_runs(runs)])


def figures(text):
    """The specifications of the figures of a page."""
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_shows_table_plots_settings_environment_and_timelines():
    text = page(made("nothing", seconds=20.0), made("bottom-up:2"), failed("head-only", 4, "Out of memory: try less."))
    assert [spec["key"] for spec in figures(text)] == [
        "quality-time", "quality-depth", "learning-curves", "quality-memory", "prediction",
    ]  # fmt: skip
    for part in ("bottom-up:2", "embeddings+0-1 | 2-3 head", "static", "batch size", "3.12", "B-LOC", "2.00"):
        assert part in text
    assert "Failed: head-only, seed 4. Out of memory: try less." in text


def test_the_page_shows_what_the_cache_did():
    from adaptivefreeze.cache import CacheStats

    stats = CacheStats(hits=3, misses=1, rows=1234, memory_bytes=5 * 2**20, seconds_saved=12.34, seconds_spent=0.56)
    text = page(made("nothing"), made("bottom-up:2", cache=True, cache_stats=stats.to_json()))
    for part in ("Prefix cache", "75.0 %", "1,234", "5 MiB", "12.3", "0.6"):
        assert part in text
    assert "Prefix cache" not in page(made("nothing"))
    aside = CacheStats(disabled_reason="one epoch only")
    assert "one epoch only" in page(made("bottom-up:2", cache=True, cache_stats=aside.to_json()))


def test_the_page_has_no_external_resources():
    text = page(made("nothing"), made("bottom-up:2"))
    assert re.findall(r"(?:src|href)=\"(?!#)([^\"]+)\"", text) == ["data:,"]
    assert "default-src 'none'" in text


def test_the_page_begins_with_the_answer():
    body = page(made("nothing", seconds=20.0), made("bottom-up:2")).partition("<body>")[2]
    assert re.findall(r"<(?:p|h1)[^>]*>([^<]*)", body)[1].startswith("Freeze embeddings + 2 of 4 blocks (bottom-up:2)")


def test_a_large_study_is_rendered_in_seconds_and_stays_small(tmp_path):
    curve = [(i / 10, 0.5 + i / 5000) for i in range(2000)]
    changes = [Change(step, FreezeMask.first(4, step % 5), "flips") for step in range(2000)]
    names = ["nothing", *(f"bottom-up:{k}" for k in range(1, 8)), "modules:<script>ғ🙂\"'&", "autofreeze"]
    moving, still = (tuple(Timeline(found).to_json()) for found in (changes, changes[:1]))
    runs = [
        made(name, seed, curve=curve, steps=2000, timeline=moving if name == "autofreeze" else still)
        for name in names
        for seed in range(10)
    ]
    folder_of(tmp_path, *runs)
    begin = time.process_time()
    written = publish(load_runs([tmp_path]), tmp_path)
    assert time.process_time() - begin < 20  # 5 beside other work; quadratic work on a curve takes minutes
    assert written[0].stat().st_size < 5_000_000
    assert len(figures(written[0].read_text())[2]["series"][0]["marks"]) == 200


def test_markup_in_names_is_escaped():
    task = replace(TASK, dataset="<script>alert(1)</script>", warnings=("<b>mind</b>",))
    text = page(made("modules:<img src=x>", task=task))
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/json" id="figures">', "<script>"]
    assert "<img" not in text
    assert "&lt;b&gt;mind" in text


def test_the_page_is_well_formed():
    opened = []

    class Checker(HTMLParser):
        void = frozenset({"meta", "link"})

        def handle_starttag(self, tag, attrs):
            if tag not in self.void:
                opened.append(tag)

        def handle_endtag(self, tag):
            if tag not in self.void:
                assert opened.pop() == tag

    Checker().feed(page(made("nothing"), failed()))
    assert opened == []


def test_a_study_of_failures_alone_has_a_page_without_plots():
    text = page(failed("nothing"))
    assert figures(text) == []
    assert "Out of memory" in text
