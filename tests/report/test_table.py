"""The table for Markdown, for programs and for the terminal."""

import csv
import io
from dataclasses import replace

import pytest
from results import failed, made
from rich.console import Console

from adaptivefreeze.report.summary import Summary
from adaptivefreeze.report.table import as_csv, columns, markdown, terminal

RUNS = [
    made("bottom-up:0", 0, seconds=20.0, macro_f1=0.90),
    made("bottom-up:0", 1, seconds=22.0, macro_f1=0.92),
    made("bottom-up:2", 0, seconds=10.0, macro_f1=0.85),
    made("bottom-up:2", 1, seconds=11.0, macro_f1=0.87),
    failed("head-only", 1),
]


def test_markdown_has_a_row_a_scenario_and_as_many_cells_as_heads():
    lines = [line for line in markdown(Summary.of(RUNS)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert "| `bottom-up:2` | 400.0k | 10.5 ± 0.7 | 2.00 ± 0.13 | 2.00 |" in lines[3]
    assert "`head-only (failed: seed 1)` | – | –" in lines[4]


def test_a_pipe_in_a_pattern_does_not_end_the_cell():
    lines = markdown(Summary.of([made("modules:query|key")])).splitlines()
    assert r"`modules:query\|key`" in lines[2]


def test_csv_holds_plain_numbers_and_empty_cells():
    rows = list(csv.DictReader(io.StringIO(as_csv(Summary.of(RUNS)))))
    assert [row["scenario"] for row in rows] == ["bottom-up:0", "bottom-up:2", "head-only"]
    assert float(rows[1]["train_seconds"]) == 10.5
    assert float(rows[1]["speedup"]) > 2
    assert rows[1]["seeds"] == "0 1"
    assert rows[2]["failed_seeds"] == "1"
    assert rows[2]["macro_f1"] == rows[2]["macro_f1_sd"] == ""


def test_entity_f1_is_a_column_only_where_there_are_entities():
    texts = [replace(run, metrics=replace(run.metrics, entity_f1=None)) for run in RUNS[:2]]
    assert "entity F1" in [column.title for column in columns(Summary.of(RUNS))]
    assert "entity F1" not in [column.title for column in columns(Summary.of(texts))]


def test_energy_is_a_column_only_where_it_was_measured():
    assert "energy" not in [column.title for column in columns(Summary.of(RUNS))]
    assert "energy" in [column.title for column in columns(Summary.of([replace(RUNS[0], energy_joules=51.0)]))]


def printed(width):
    console = Console(width=width, file=io.StringIO())
    console.print(terminal(Summary.of(RUNS), console))
    return console.file.getvalue()


def test_a_wide_terminal_shows_everything():
    text = printed(150)
    for part in ("bottom-up:2", "0.8600 ± 0.0141", "300 MiB", "400.0k", "accuracy", "weighted"):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_shows_fewer_columns_and_each_whole(width):
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("bottom-up:2", "0.8600 ± 0.0141", "2.00 ± 0.13", "head-only (failed: seed 1)"):
        assert part in text
    assert "…" not in text
    assert "weighted" not in text
    assert ("300 MiB" in text) == (width > 100)
