"""The table as Markdown, CSV and terminal output."""

import csv
import io
from dataclasses import replace

import pytest
from results import UNFROZEN, failed, made, searched
from rich.console import Console

from adaptivefreeze.cache import CacheStats
from adaptivefreeze.comparison.result import Metrics
from adaptivefreeze.report.formats import as_csv, latex, markdown
from adaptivefreeze.report.load import summarize_search
from adaptivefreeze.report.summary import summarize_runs
from adaptivefreeze.report.table import caption, columns, terminal

RUNS = [
    made("bottom-up:0", 0, seconds=20.0, macro_f1=0.90),
    made("bottom-up:0", 1, seconds=22.0, macro_f1=0.92),
    made("bottom-up:2", 0, seconds=10.0, macro_f1=0.85),
    made("bottom-up:2", 1, seconds=12.0, macro_f1=0.87),
    failed("head-only", 1),
]


def test_markdown_has_a_row_a_scenario_and_as_many_cells_as_heads():
    table = markdown([summarize_runs(RUNS)]).partition("| class |")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert "| `bottom-up:2` | 400.0k | 11.0 ± 1.4 | 1.92 ± 0.12 | 2.00 |" in lines[3]
    assert "`head-only (failed: seed 1)` | – | –" in lines[4]


def test_a_pipe_in_a_pattern_does_not_end_the_cell():
    assert r"| `modules:query\|key` |" in markdown([summarize_runs([made("modules:query|key")])])


def test_csv_holds_plain_numbers_and_empty_cells():
    rows = list(csv.DictReader(io.StringIO(as_csv([summarize_runs(RUNS)]))))
    assert [row["scenario"] for row in rows] == ["bottom-up:0", "bottom-up:2", "head-only"]
    assert float(rows[1]["train_seconds"]) == 11.0
    assert float(rows[1]["speedup"]) == pytest.approx((20 / 10 + 22 / 12) / 2)
    assert rows[1]["seeds"] == "0 1"
    assert rows[2]["failed_seeds"] == "1"
    assert rows[2]["macro_f1"] == rows[2]["macro_f1_sd"] == ""


def test_latex_has_rules_of_booktabs_and_escapes_text():
    text = latex([summarize_runs([made("nothing"), made(r"modules:a_b\d{2}^&%$#~")])])
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\usepackage{booktabs}", r"0.80"):
        assert part in text
    assert r"modules:a\_b\textbackslash{}d\{2\}\textasciicircum{}\&\%\$\#\textasciitilde{}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1


def test_differences_are_paired_by_seed_with_their_interval():
    # +1, −3 and −1 points in three seeds: mean −1, sd 2, t(0.975, 2) = 4.303.
    full = [made("nothing", seed, macro_f1=score) for seed, score in enumerate((0.80, 0.90, 0.85))]
    less = [made("bottom-up:2", seed, macro_f1=score) for seed, score in enumerate((0.81, 0.87, 0.84))]
    summary = summarize_runs([*full, *less, made("head-only", 1, macro_f1=0.5), made("head-only", 7)])
    lines = markdown([summary]).splitlines()
    cells = {line.split(" | ")[0].strip("| `"): line.split(" | ") for line in lines if line.startswith("| `")}
    place = next(line for line in lines if line.startswith("| scenario")).split(" | ").index("Δ macro F1")
    assert cells["nothing"][place] == "–"
    assert cells["bottom-up:2"][place] == "−1.00 ± 4.97"
    assert cells["head-only"][place] == "−40.00", "seed 7 has no full fine-tuning"
    row = next(row for row in csv.DictReader(io.StringIO(as_csv([summary]))) if row["scenario"] == "bottom-up:2")
    assert float(row["macro_f1_difference"]) == pytest.approx(-0.01)
    assert float(row["macro_f1_difference_low"]) == pytest.approx(-0.01 - 0.0496828, abs=1e-6)


def test_a_shorter_full_fine_tuning_of_the_same_time_is_the_control():
    runs = [made("nothing", 0, seconds=20.0, macro_f1=0.90), made("bottom-up:2", 0, seconds=10.0, macro_f1=0.85)]
    short = [
        made("short-full:0.5", 0, seconds=11.0, macro_f1=0.87),
        made("short-full:0.3", 0, seconds=6.0, macro_f1=0.83),
    ]
    assert "short full" not in markdown([summarize_runs(runs)])
    text = markdown([summarize_runs([*runs, *short, made("head-only", 0, seconds=8.0, macro_f1=0.5)])])
    assert "−2.00 (0.5)" in text
    assert text.count("−2.00 (") == 1
    assert "(0.3)" not in text, "no scenario took that time"


def test_classes_are_listed_with_their_support_rare_ones_first():
    def scored(scenario, common, rare, **changes):
        per_class = {"PER": {"f1": common, "support": 900}, "ADAGE": {"f1": rare, "support": 3}}
        return made(scenario, metrics=Metrics(0.9, 0.8, 0.9, 0.8, per_class), **changes)

    runs = [scored("nothing", 0.95, 0.4, timeline=UNFROZEN), scored("bottom-up:2", 0.94, 0.1)]
    text = markdown([summarize_runs(runs)])
    lines = text.partition("| class |")[2].splitlines()
    assert lines[2:4] == ["| ADAGE | 3 | 40.0 | 10.0 |", "| PER | 900 | 95.0 | 94.0 |"]
    assert "A deeper freeze costs the class ADAGE most: 40.0 with 0 frozen blocks, 10.0 with 2." in text


def test_what_the_cache_did_is_shown_where_something_was_looked_up():
    stats = CacheStats(hits=3, misses=1, seconds_saved=12.5, seconds_spent=0.5)
    others = CacheStats(hits=1, misses=1, seconds_saved=9.0, seconds_spent=1.0)
    runs = [
        made("nothing", cache=True, cache_stats=CacheStats().to_json()),
        made("bottom-up:2", 0, cache=True, cache_stats=stats.to_json()),
        made("bottom-up:2", 1, cache=True, cache_stats=others.to_json()),
    ]
    summary = summarize_runs(runs)
    shown = {column.title: [column.cell(row) for row in summary.rows] for column in columns(summary)}
    assert shown["cache hits"] == ["–", "62% ± 18%"]
    assert shown["cache saved s"] == ["–", "10.0 ± 2.8"]
    assert "evaluations included" in caption(summary)
    plain = summarize_runs(RUNS)
    assert not [column.title for column in columns(plain) if "cache" in column.title]
    assert "Cache hits" not in caption(plain)


def test_entity_f1_is_a_column_only_where_there_are_entities():
    texts = [replace(run, metrics=replace(run.metrics, entity_f1=None)) for run in RUNS[:2]]
    assert "entity F1" in [column.title for column in columns(summarize_runs(RUNS))]
    assert "entity F1" not in [column.title for column in columns(summarize_runs(texts))]


def test_energy_is_a_column_only_where_it_was_measured():
    assert "energy" not in [column.title for column in columns(summarize_runs(RUNS))]
    assert "energy" in [column.title for column in columns(summarize_runs([replace(RUNS[0], energy_joules=51.0)]))]


def printed(width):
    console = Console(width=width, file=io.StringIO())
    console.print(terminal(summarize_runs(RUNS), console))
    return console.file.getvalue()


def test_a_wide_terminal_shows_all_columns():
    text = printed(190)
    for part in ("bottom-up:2", "0.8600 ± 0.0141", "300 MiB", "400.0k", "accuracy", "weighted"):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_shows_fewer_columns_and_each_whole(width):
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("bottom-up:2", "0.8600 ± 0.0141", "1.92 ± 0.12", "head-only (failed: seed 1)"):
        assert part in text
    assert "…" not in text
    assert "weighted" not in text
    assert ("300 MiB" in text) == (width > 100)


# Searches


def test_the_table_of_a_search_has_a_row_per_candidate_and_says_what_was_chosen():
    text = markdown([summarize_search(searched())])
    assert "| `2 (k*, k_fast)` | 0.9065 ± 0.0021 |" in text
    assert "| `3 (failed)` | – |" in text
    assert "| `top-down:2,embeddings=true` | 0.6100 ± 0.0141 |" in text
    assert text.startswith("The best k is 2.")
    assert [row.name for row in summarize_search(searched()).rows][-1] == "top-down:2,embeddings=true"


def test_with_one_seed_there_are_no_columns_of_certainty():
    one = summarize_search(searched(replicates=("seed 0",)))
    assert "interval" not in markdown([one])
    assert "P(best)" not in caption(one)


def test_the_caption_says_when_lower_scores_are_better():
    assert "(lower is better)" in caption(summarize_search(searched(greater_is_better=False)))
    assert "lower" not in caption(summarize_search(searched()))


def test_the_csv_of_a_search_holds_the_score_of_every_seed():
    table = list(csv.DictReader(io.StringIO(as_csv([summarize_search(searched())]))))
    assert [row["scenario"] for row in table][:2] == ["bottom-up:0", "bottom-up:2"]
    assert float(table[1]["seed 1"]) == 0.908
    assert float(table[1]["validation_score"]) == pytest.approx(0.9065)
    assert table[3]["validation_score"] == ""
    assert sum(float(row["probability_best"]) for row in table[:3]) == pytest.approx(1)


def test_the_terminal_shows_the_rows_of_a_search():
    assert terminal(summarize_search(searched()), Console(width=150)).row_count == 5
