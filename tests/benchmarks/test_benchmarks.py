"""Every benchmark starts, and one that drives whole runs of the laboratory runs."""

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
