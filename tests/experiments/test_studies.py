"""The scripts of the experiments: studies that go on from their committed runs, and what is read off them."""

import importlib
import json
import shutil
import sys
import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import typer
from results import MODEL, UNFROZEN, folder_of, made

from adaptivefreeze.cli.config import read_config
from adaptivefreeze.cli.main import app
from adaptivefreeze.cli.request import Request
from adaptivefreeze.comparison.folder import StudyFolder
from adaptivefreeze.comparison.result import Metrics, ValidationPoint
from adaptivefreeze.report.published import read_published

FOLDER = Path(__file__).parents[2] / "experiments"
CONFIGS = sorted(FOLDER.glob("*/*.toml"))
SCRIPTS = ("study", "stored_runs", "relative", "task_data", "sequence", "prepare", "early_stopping", "estimate")


@pytest.fixture
def script(monkeypatch):
    """script("relative"): a script of the experiments, which finds its neighbours as it does when run."""
    for folder in (FOLDER, FOLDER / "transfer", FOLDER / "long", FOLDER / "energy"):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_holds_options_of_its_command_that_are_valid(path):
    command = "search" if "experiments/study.py search " in path.read_text() else "compare"
    known = {parameter.name for parameter in typer.main.get_command(app).commands[command].params}
    options = read_config(path, known)
    assert Request.of(options).seeds
    assert tomllib.loads(path.read_text())["model"].count("/") == 1, "a hub name"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("published/*.csv")), ids=lambda path: path.stem)
def test_published_figures_can_be_read(path):
    figures = read_published(path)
    assert all(0 < scores.macro_f1 < 1 for scores in figures.values())
    if path.stem != "static_sentiment":
        assert len(figures) == 10
        assert all(scores.train_seconds for scores in figures.values())


def test_a_study_goes_on_from_its_committed_runs(script, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "experiments" / "toy" / "tags.toml"
    config.parent.mkdir(parents=True)
    config.write_text('epochs = 1\nbatch-size = 8\nmax-length = 16\nscenarios = ["bottom-up:0", "bottom-up:2"]\n')
    command = ["compare", str(config), "--model", str(tiny_folder / "model"), "--dataset", str(tiny_folder / "tags")]
    assert script("study").main([*command, "--device", "cpu"]) == 0
    stored = config.with_suffix(".jsonl")
    first = script("stored_runs").read(stored)
    assert [run.scenario for run in first] == ["bottom-up:0", "bottom-up:2"]
    assert "| `bottom-up:2` |" in (config.parent / "tags_table.md").read_text()
    shutil.rmtree("runs")
    assert script("study").main([*command, "--device", "cpu", "--seeds", "0", "1"]) == 0
    again = script("stored_runs").read(stored)
    assert [(run.scenario, run.seed) for run in again] == [
        (s, n) for s in ("bottom-up:0", "bottom-up:2") for n in (0, 1)
    ]
    assert [run for run in again if run.seed == 0] == first, "none of them was trained again"
    folder_of(tmp_path / "other", made())
    with pytest.raises(SystemExit, match="another study"):
        script("stored_runs").unpack(stored, tmp_path / "other")


def test_all_but_rounded_signals_comes_back_from_the_file(script, tmp_path):
    module = script("stored_runs")
    runs = [made("bottom-up:0", 0), made("bottom-up:2", 1, environment={"device": "cuda"})]
    module.pack(folder_of(tmp_path / "study", *runs), tmp_path / "study.jsonl")
    assert module.read(tmp_path / "study.jsonl") == runs
    module.unpack(tmp_path / "study.jsonl", tmp_path / "copy")
    assert StudyFolder(tmp_path / "copy").runs() == runs
    assert (tmp_path / "copy" / "study.json").read_text() == (tmp_path / "study" / "study.json").read_text()


def test_no_path_of_the_machine_is_stored(script, tmp_path):
    module = script("stored_runs")
    folder = folder_of(tmp_path / "study", made(model=replace(MODEL, name=str(tmp_path / "e5-small"))))
    value = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**value, "model": {**value["model"], "name": "/models/e5-small"}}))
    module.pack(folder, tmp_path / "study.jsonl")
    assert '"name":"e5-small"' in (tmp_path / "study.jsonl").read_text()
    assert "/models" not in (tmp_path / "study.jsonl").read_text()
    assert str(tmp_path) not in (tmp_path / "study.jsonl").read_text()
    module.pack(folder_of(tmp_path / "hub", made(model=replace(MODEL, name="intfloat/e5"))), tmp_path / "hub.jsonl")
    assert '"name":"intfloat/e5"' in (tmp_path / "hub.jsonl").read_text()


def test_early_stopping_is_read_off_a_validation_curve(script, tmp_path, capsys):
    curve = [ValidationPoint(10 * n, n, score, 2.0 * n) for n, score in enumerate((0.5, 0.7, 0.6, 0.6, 0.8), 1)]
    full = replace(made("bottom-up:0", 0, seconds=10.0, timeline=UNFROZEN), validation=tuple(curve))
    script("stored_runs").pack(folder_of(tmp_path / "study", full, made("bottom-up:2")), tmp_path / "study.jsonl")
    module = script("early_stopping")
    module.main([str(tmp_path / "study.jsonl"), "--patience", "1", "2", "3"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[0] == ["1", "30", "0.60", "70.0", "80.0"]
    assert rows[1] == ["2", "40", "0.80", "70.0", "80.0"]
    assert rows[2] == ["3", "50", "1.00", "80.0", "80.0"], "never three evaluations without a new best score"


def test_scores_and_times_are_read_off_relative_to_full_fine_tuning(script, tmp_path):
    def run(scenario, seed, rare, **changes):
        classes = {
            name: {"f1": f1, "support": support}
            for name, f1, support in (("A", 0.8, 90), ("B", 0.8, 80), ("C", rare, 3), ("D", rare, 2))
        }
        return replace(made(scenario, seed, **changes), metrics=Metrics(0.9, 0.4 + rare / 2, 0.9, 0.8, classes))

    runs = [run("bottom-up:0", seed, 0.8, seconds=20.0, timeline=UNFROZEN) for seed in (0, 1)]
    runs += [run("bottom-up:2", seed, 0.4, seconds=10.0) for seed in (0, 1)]
    module = script("relative")
    _, row = module.rows("toy", [*runs, made("bottom-up:3", 7)])
    cells = dict(zip(module.HEADS, row, strict=True))
    assert cells["scenario"] == "`bottom-up:2`"
    assert (cells["trainable"], cells["time"], cells["seeds"]) == ("0.40", "0.50", "2")
    assert cells["macro F1"] == "75.0 (75.0–75.0)"
    assert cells["rare"].startswith("50.0")
    assert cells["frequent"].startswith("100.0")


def test_pieces_of_a_document_hold_all_its_words_within_their_length(script, tmp_path):
    module = script("prepare")
    document = [[f"w{i} O"] * size for i, size in enumerate((3, 3, 5, 1, 9, 2))]
    cut = module.pieces(document, [len(sentence) for sentence in document], most=6)
    assert [len(piece) for piece in cut] == [6, 6, 9, 2]
    assert list(chain.from_iterable(cut)) == list(chain.from_iterable(document))
    (tmp_path / "train.txt").write_text("-DOCSTART- O\n\na O\n\nb B-PER\nc O\n\n-DOCSTART- O\n\nd O\n")
    assert module.documents(tmp_path / "train.txt") == [[["a O"], ["b B-PER", "c O"]], [["d O"]]]


def test_data_sets_are_reduced_to_the_classes_they_share(script, tmp_path):
    source = tmp_path / "kazakh"
    source.mkdir()
    for split in ("train", "valid", "test"):
        (source / f"{split}.txt").write_text("Абай B-PERSON\nАстана B-GPE\nкеше B-DATE\n\nҰБТ B-ORGANISATION\n")
    reduced = script("task_data").reduce_classes(source, tmp_path / "shared")
    assert (reduced / "train.txt").read_text() == "Абай B-PER\nАстана B-LOC\nкеше O\n\nҰБТ B-ORG\n"


def test_a_sequence_goes_on_from_its_rows_and_chooses_by_probes(script, tiny_folder, tmp_path, capsys):
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        shutil.copytree(tiny_folder / "tags", folder)
    module = script("sequence")
    command = ["--model", str(tiny_folder / "model"), "--ner", str(first), str(second), "--epochs", "2"]
    command += ["--policies", "bottom-up:0", "bottom-up:2", "--probe", "8", "--max-length", "16", "--batch-size", "8"]
    command += ["--learning-rate", "1e-2", "--work", str(tmp_path / "work"), "--rows", str(tmp_path / "rows.jsonl")]
    module.main([*command, "--seeds", "0"])
    stored = (tmp_path / "rows.jsonl").read_text()
    _settings, *rows = map(json.loads, stored.splitlines())
    (choice,) = (row for row in rows if "chosen" in row)
    means = {spec: sum(scores.values()) for spec, scores in choice["probed"].items()}
    assert means[choice["chosen"]] == max(means.values())
    full, frozen = ([["first", "bottom-up:0"], ["second", spec]] for spec in ("bottom-up:0", "bottom-up:2"))
    trained = [row["trained"] for row in rows if "chosen" not in row]
    assert sorted(trained) == sorted([full[:1], [["second", "bottom-up:0"]], full, frozen]), (
        "the chosen one is one of them"
    )
    assert all(row["scores"]["first"] == row["scores"]["second"] for row in rows if "scores" in row), "the same data"
    shutil.rmtree(tmp_path / "work")
    capsys.readouterr()
    module.main([*command, "--seeds", "0"])
    assert (tmp_path / "rows.jsonl").read_text() == stored
    assert not (tmp_path / "work").exists(), "nothing was trained"
    assert f"Chosen, seed 0: {choice['chosen']}." in (tmp_path / "rows_table.md").read_text()
    module.main([*command, "--seeds", "0", "--policies", "bottom-up:0", "bottom-up:2", "top-down:1"])
    *_, wider = (row for row in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()) if "chosen" in row)
    assert wider["probed"] == {**choice["probed"], "top-down:1": wider["probed"]["top-down:1"]}, "probed once"
    assert wider["seconds"] > choice["seconds"]
    assert "`top-down:1`" in (tmp_path / "rows_table.md").read_text()
    with pytest.raises(SystemExit, match="also one of top-down:1"):
        module.main([*command, "--seeds", "0"])
    with pytest.raises(SystemExit, match=r"other settings \(epochs\)"):
        module.main([*command, "--seeds", "0", "--epochs", "3"])


def test_forgetting_and_forward_transfer_of_three_tasks(script, tmp_path):
    module = script("sequence")
    rows = module.Rows(tmp_path / "rows.jsonl", {"model": "tiny"})
    chain = module.fixed("abc", "bottom-up:2")
    scores = {chain[:1]: (0.8, 0.2, 0.1), chain[:2]: (0.85, 0.7, 0.3), chain: (0.5, 0.6, 0.9)}
    scores |= {((task, module.FULL),): (0.1, 0.75, 0.7) for task in "bc"}
    for trained, values in scores.items():
        named = {task: {"macro_f1": value} for task, value in zip("abc", values, strict=True)}
        rows.add({"seed": 0, "trained": trained, "scores": named, "seconds": 3.0})
    found = module.measures(module.Rows(tmp_path / "rows.jsonl", {"model": "tiny"}), "abc", 0, chain, "macro_f1")
    assert found["matrix"] == [[0.8, 0.2, 0.1], [0.85, 0.7, 0.3], [0.5, 0.6, 0.9]]
    assert found["forgetting"] == pytest.approx(((0.85 - 0.5) + (0.7 - 0.6)) / 2)
    assert found["transfer"] == pytest.approx(((0.7 - 0.75) + (0.9 - 0.7)) / 2)
    assert found["train"] == 6


def test_halves_hold_all_texts_divided_at_the_median_length_of_training(script, tmp_path):
    source = tmp_path / "texts"
    source.mkdir()
    texts = {"train": ["a", "a b", '"a, b c"', "a b c d"], "validation": ["a b", "a b c"], "test": ["a b c d e", "a"]}
    for split, lines in texts.items():
        (source / f"{split}.csv").write_text("text,label\n" + "".join(f"{line},1\n" for line in lines))
    folders = script("task_data").halves(source, tmp_path / "halves")
    short, long = ((folders[name] / "train.csv").read_text().splitlines()[1:] for name in ("short", "long"))
    assert (short, long) == (["a,1", "a b,1"], ['"a, b c",1', "a b c d,1"])
    assert (folders["long"] / "test.csv").read_text().splitlines()[1:] == ["a b c d e,1"]


def test_estimated_energy_stands_beside_time_as_ratios_to_the_first_scenario(script):
    def run(scenario, seed, seconds, joules):
        times = {"processor_seconds": seconds, "wall_seconds": 2 * seconds}
        return {"scenario": scenario, "seed": seed, "processor_joules": joules, "memory_joules": 10.0, **times}

    rows = [run("full", 0, 10, 30), run("full", 1, 20, 70), run("half", 0, 5, 10), run("half", 1, 8, 30)]
    *_, full, half = script("estimate").table(rows, ["full", "half"]).splitlines()
    assert full == "| `full` | 2 | 15 | 30 | 50 | 10 | 60 | 1.00 ± 0.00 | 1.00 ± 0.00 |"
    assert half == "| `half` | 2 | 6 | 13 | 20 | 10 | 30 | 0.50 ± 0.00 | 0.45 ± 0.07 |"
