"""adaptivefreeze search: what is typed, what is written, what is said, and the exit status."""

import json

import pytest
from tiny import save_model, save_tags, save_texts
from typer.testing import CliRunner

from adaptivefreeze import RequestError, parse_policy
from adaptivefreeze.cli.main import app
from adaptivefreeze.cli.request import parse_depths, search_options
from adaptivefreeze.search import SearchOptions

QUICK = ["--epochs", "1", "--batch-size", "8", "--learning-rate", "1e-2", "--max-length", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_model(folder / "model")
    save_tags(folder / "tags")
    save_texts(folder / "texts")
    return folder


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Types a search in an empty folder, on the tiny model and tags unless a word says otherwise."""
    monkeypatch.chdir(tmp_path)

    def type_(*words):
        chosen = ["--dataset", str(tiny / "tags"), "--model", str(tiny / "model"), *QUICK]
        return CliRunner().invoke(app, ["search", *chosen, *map(str, words)])

    return type_


def test_a_search_ends_with_files_and_an_answer_and_report_makes_them_again(run, tmp_path):
    done = run("--depths", "0-1", "4", "--seeds", "0", "1", "--baselines", "top-down:2", "--output", "out")
    assert done.exit_code == 0, done.output
    for part in ("The best k is", "k_fast", "95 %", "top-down:2", "optuna-dashboard"):
        assert part in done.output
    out = tmp_path / "out"
    assert {path.name for path in out.glob("search.*")} == {f"search.{e}" for e in ("json", "md", "csv", "tex", "html")}
    assert (out / "study.db").is_file()
    assert len(list((out / "runs").glob("*.json"))) == 8
    (out / "search.html").unlink()
    again = CliRunner().invoke(app, ["report", "out"])
    assert again.exit_code == 0, again.output
    assert (out / "search.html").is_file()
    assert (out / "report.html").is_file()


def test_compare_reads_the_runs_of_a_search_and_scores_those_that_it_needs(run, tiny, tmp_path):
    run("--depths", "0", "4", "--baselines", "none", "--output", "out")
    words = ["--dataset", str(tiny / "tags"), "--model", str(tiny / "model"), *QUICK, "--cache", "--output", "out"]
    done = CliRunner().invoke(app, ["compare", *words, "--scenarios", "nothing", "bottom-up:4"])
    assert done.exit_code == 0, done.output
    runs = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").iterdir()}
    assert runs["nothing-s0.json"]["metrics"]["macro_f1"] == runs["bottom-up:0-s0.json"]["metrics"]["macro_f1"]
    assert runs["bottom-up:4-s0.json"]["metrics"] is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--depths", "9"], "depths 9 is out of range: this model has 4 blocks"),
        (["--depths", "deep"], "give whole numbers or ranges"),
        (["--metric", "bleu"], "metric bleu is not reported; this task has macro_f1"),
        (["--metric", "f1"], "accuracy, loss. Did you mean macro_f1?"),
        (["--storage", "postgresql+psycopg://nobody@127.0.0.1:9/x"], "does not answer as a storage"),
        (["--folds", "1"], "--folds 1 is not possible"),
        (["--pareto"], "give trials as well"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_status_2(run, tmp_path, words, said):
    done = run(*words, "--output", "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_tasks_study_is_status_2_and_untouched(run, tiny, tmp_path):
    run("--depths", "0", "--baselines", "none", "--output", "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    done = run("--depths", "0", "--dataset", tiny / "texts", "--output", "out")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "another study" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_when_no_training_ends_the_status_is_1(run):
    done = run("--depths", "0", "--baselines", "none", "--learning-rate", "1e30", "--output", "out")
    assert done.exit_code == 1
    assert "Error: No training ended: bottom-up:0, seed 0: Training diverged" in done.stderr


def test_depths_as_they_are_typed():
    assert parse_depths(["0-3", "6,9"]) == (0, 1, 2, 3, 6, 9)
    for wrong in ("x", "3-", "-1", "1.5"):
        with pytest.raises(RequestError, match="give whole numbers or ranges"):
            parse_depths([wrong])


def test_options_as_the_command_line_gives_them():
    options = search_options(
        {"depths": ["0-2"], "tolerance": 0.3, "baselines": ["none"], "seeds": (1,), "storage": None}
    )
    assert options == SearchOptions(depths=(0, 1, 2), tolerance=0.003, baselines=(), seeds=(1,))
    assert SearchOptions().compared_with == ("paper",)
    assert SearchOptions(quick=True).compared_with == SearchOptions(trials=3).compared_with == ()


def test_the_loss_is_minimized(run, tmp_path):
    done = run("--metric", "loss", "--depths", "0", "4", "--baselines", "none", "--eval-limit", "6", "--output", "out")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "search.json").read_text())
    scores = {outcome["scenario"]: outcome["scores"][0] for outcome in found["outcomes"]}
    assert found["best"] == min(scores, key=scores.get)
    for line in ("[1/2] bottom-up:0, seed 0, begins.", "test split, 1 of ", "validation loss 0"):
        assert line in done.stderr
    assert "left." in done.stderr.split("[2/2]")[1].splitlines()[0]


def test_a_search_of_rates_ends_with_a_spec_that_trains(run, tmp_path):
    done = run("--trials", "4", "--space", "rates", "--seeds", "0", "1", "--output", "out")
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "out" / "search.json").read_text())
    samples = [outcome["scenario"] for outcome in stored["outcomes"]]
    assert "bottom-up:0" in samples
    assert sum(spec.startswith("rates:") for spec in samples) >= 2
    assert all(parse_policy(spec) for spec in samples)
    assert f"The best candidate is {stored['best']}" in done.output
    page = (tmp_path / "out" / "search.html").read_text()
    assert all(spec in page for spec in samples)
