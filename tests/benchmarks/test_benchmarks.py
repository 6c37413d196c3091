"""Every benchmark starts, and one that drives whole runs of the laboratory runs."""

import json
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if '__name__ == "__main__"' in path.read_text()]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def run(monkeypatch, path, *arguments):
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_explains_itself(path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit:
        run(monkeypatch, path, "--help")
    assert exit.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_whole_runs_are_compared(tiny_folder, tmp_path, monkeypatch, capsys):
    arguments = ["--dataset", tiny_folder / "tags", "--model", tiny_folder / "model", "--max-length", 16, "--epochs", 2]
    arguments += ["--policies", "bottom-up:1", "--output", tmp_path / "table.md"]
    run(monkeypatch, FOLDER / "whole_run.py", *map(str, arguments))
    rows = [line.split(" | ")[0] for line in (tmp_path / "table.md").read_text().splitlines()[-2:]]
    assert rows == ["| `nothing`", "| `bottom-up:1`"]


def test_the_benchmark_for_a_gpu_runs_on_a_cpu(tmp_path, monkeypatch, capsys):
    arguments = ["--device", "cpu", "--small", "--seconds", "1", "--rounds", "1", "--epochs", "2"]
    run(monkeypatch, FOLDER / "gpu.py", *arguments, "--output", str(tmp_path / "table.md"))
    text = (tmp_path / "table.md").read_text()
    assert "on the CPU agree" in text
    assert [row for row in text.splitlines() if row.startswith("| full")]
    assert all(row.endswith("| 0.50 |") for row in text.splitlines() if ", cache |" in row)  # filled, then found


def test_filling_in_8_bits_is_measured(tiny_folder, tmp_path, monkeypatch, capsys):
    arguments = ["--dataset", tiny_folder / "tags", "--model", tiny_folder / "model", "--max-length", 16]
    arguments += ["--batches", 1, "--rounds", 1, "--output", tmp_path / "table.md"]
    run(monkeypatch, FOLDER / "int8_prefix.py", *map(str, arguments))
    rows = (tmp_path / "table.md").read_text().splitlines()[-3:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| as they are",
        "| in 8 bits",
        "| torch's dynamic quantisation",
    ]


METHODS = ("full@1e-2", "by-hand:0.5@1e-2", "lora@1e-2", "lora-above:1@1e-2", "ia3@1e-2", "backbone-finetuning@1e-2",
           "bottom-up:0.5@1e-2")  # fmt: skip


def test_peers_are_compared_and_none_is_trained_twice(tiny_folder, tmp_path, monkeypatch, capsys):
    arguments = ["--dataset", tiny_folder / "tags", "--model", tiny_folder / "model", "--epochs", 2, "--limit", 32]
    command = [tmp_path / "runs", *arguments, "--max-length", 16, "--output", tmp_path / "peers.md", "--methods"]
    run(monkeypatch, FOLDER / "peers.py", *map(str, command), *METHODS)
    runs = {run["method"].split("@")[0]: run for run in map(read, (tmp_path / "runs").glob("*.json"))}
    assert len(runs) == len(METHODS)
    assert {run["steps"] for run in runs.values()} == {4}
    assert all(len(run["curve"]) == 2 for run in runs.values())
    full, cached = runs["full"], runs["bottom-up:0.5"]
    assert full["trained_parameters"] > runs["by-hand:0.5"]["trained_parameters"] == cached["trained_parameters"]
    assert full["saved_bytes"] == runs["by-hand:0.5"]["saved_bytes"] == runs["backbone-finetuning"]["saved_bytes"]
    assert all(0 < runs[name]["saved_bytes"] < full["saved_bytes"] for name in ("ia3", "bottom-up:0.5"))
    assert cached["cache"]["hits"] > 0
    assert runs["lora-above:1"]["cache"]["hits"] > 0
    assert runs["lora-above:1"]["trained_parameters"] < runs["lora"]["trained_parameters"]
    page = (tmp_path / "peers.md").read_text()
    assert all(name in page for name in ("full fine-tuning", "LoRA (PEFT)", "BackboneFinetuning (Lightning)"))

    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    run(monkeypatch, FOLDER / "peers.py", *map(str, command), *METHODS)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == stored


def read(path):
    return json.loads(path.read_text())


def test_a_row_reaches_the_quality_or_not():
    from methods import Method, Rows, Target

    def row(text, *scores):
        curve = [{"seconds": 10.0 * (i + 1), "macro_f1": score} for i, score in enumerate(scores)]
        return Rows(Method.parse(text, 3), ({"seed": 0, "curve": curve, "test": {"macro_f1": 0.5}},))

    full, slow = row("full@2e-4", 0.5, 0.7, 0.8), row("full@1e-4", 0.4, 0.5, 0.6)
    fast, worse = row("side@2e-4", 0.799, 0.79, 0.79), row("lora@2e-3", 0.5, 0.6, 0.797)
    target = Target([full, slow, fast, worse], 3, margin=0.2)
    assert target.full is full
    assert target.points == {0: pytest.approx(79.8)}
    assert (target.reached(full), target.reached(fast), target.reached(worse)) == ([30.0], [10.0], None)
    assert (target.speedups(fast), target.speedups(worse)) == ([3.0], [])
    assert target.missed(worse) == "not reached"


def test_a_row_tells_how_many_of_its_seeds_reach_the_quality():
    from methods import Method, Rows, Target

    def rows(text, *finals):
        runs = (
            {"seed": i, "curve": [{"seconds": 1.0, "macro_f1": v}], "test": {"macro_f1": 0.5}}
            for i, v in enumerate(finals)
        )
        return Rows(Method.parse(text, 3), tuple(runs))

    full, some, none = rows("full@1e-4", 0.8, 0.8), rows("side@1e-4", 0.9, 0.7), rows("lora@1e-3", 0.7, 0.7)
    target = Target([full, some, none], 3, margin=0.2)
    assert target.reached(some) is None
    assert target.missed(some) == "1 of 2 seeds"
    assert target.missed(none) == "not reached"


def test_a_table_without_full_fine_tuning_is_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, FOLDER / "time_to_quality.py", str(tmp_path), "--table", "--epochs", "10")
    assert refused.value.code == 2
    assert "has no full fine-tuning of 10 epochs" in capsys.readouterr().err
