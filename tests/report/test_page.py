"""The HTML page: it is self-contained, and it escapes all text."""

import re
from dataclasses import replace
from html.parser import HTMLParser

from results import TASK, failed, made

from adaptivefreeze.report.drawing import draw_all, svg
from adaptivefreeze.report.page import render
from adaptivefreeze.report.summary import summarize_runs


def page(*runs):
    summary = summarize_runs(runs)
    return render(summary, [svg(figure) for figure in draw_all(summary).values()])


def test_the_page_shows_table_plots_settings_environment_and_timelines():
    text = page(made("nothing", seconds=20.0), made("bottom-up:2"), failed("head-only", 4, "Out of memory: try less."))
    assert text.count("<svg") == 2
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
    loaded = re.findall(r"(?:src|href)=\"(?!#)([^\"]+)\"", page(made("nothing"), made("bottom-up:2")))
    assert loaded == []


def test_markup_in_names_is_escaped():
    task = replace(TASK, dataset="<script>alert(1)</script>", warnings=("<b>mind</b>",))
    text = page(made("modules:<img src=x>", task=task))
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;b&gt;mind" in text


def test_the_page_is_well_formed():
    opened = []

    class Checker(HTMLParser):
        void = frozenset({"meta", "path", "use", "rect", "br"})

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
    assert "<svg" not in text
    assert "Out of memory" in text
