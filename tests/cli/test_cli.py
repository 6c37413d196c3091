"""The command line: what is typed, what is written, what is said, and the exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from tiny import save_model, save_tags, save_texts
from typer.testing import CliRunner

from adaptivefreeze.cli.main import app
from adaptivefreeze.cli.options import repeat_names
from adaptivefreeze.cli.request import Request, with_demo_comparison
from adaptivefreeze.data import DEMO

QUICK = ["--epochs", "1", "--batch-size", "8", "--max-length", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_model(folder / "model")
    save_tags(folder / "tags")
    save_texts(folder / "texts")
    return folder


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Types a command in an empty folder; the tiny model and tags are chosen unless a word says otherwise."""
    monkeypatch.chdir(tmp_path)

    def type_(command, *words):
        defaults = [] if command == "report" else ["--dataset", str(tiny / "tags")]
        if command in ("compare", "train"):
            defaults += ["--model", str(tiny / "model"), *QUICK]
        return CliRunner().invoke(app, [command, *defaults, *map(str, words)])

    return type_


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_options_of_examples_clock_and_control_reach_the_runs(run):
    words = ["--per-class", "4", "--test-limit", "5", "--clock", "processor", "--short-full", "--output", "out"]
    assert run("compare", "--scenarios", "bottom-up:0", "bottom-up:4", *words).exit_code == 0
    stored = {path.stem: json.loads(path.read_text()) for path in Path("out/runs").iterdir()}
    assert {"bottom-up:0-s0", "bottom-up:4-s0"} <= set(stored)
    assert all("short-full" in name for name in set(stored) - {"bottom-up:0-s0", "bottom-up:4-s0"})
    for result in stored.values():
        assert result["settings"]["clock"] == "processor"
        assert 4 <= result["task"]["train_examples"] <= 8
        assert sum(result["task"]["label_counts"]["test"].values()) < 5 * 7
    assert run("compare", "--limit", "4", *words).exit_code == 2


# How words become options


@pytest.mark.parametrize(
    ("words", "repeated"),
    [
        ("--seeds 0 1 2 --force", "--seeds 0 --seeds 1 --seeds 2 --force"),
        ("--seeds 0 --seeds 1", "--seeds 0 --seeds 1"),
        ("--seeds=0 1", "--seeds=0 --seeds 1"),
        ("--scenarios paper head-only --seeds 0", "--scenarios paper --scenarios head-only --seeds 0"),
        ("--model a b", "--model a b"),
        ("--seeds 0 -- 1 2", "--seeds 0 -- 1 2"),
        ("", ""),
    ],
)
def test_a_list_option_takes_several_values(words, repeated):
    assert repeat_names(words.split(), {"--seeds", "--scenarios"}) == repeated.split()


# The commands


def test_compare_prints_the_table_and_writes_what_it_promises(run, tmp_path):
    done = run("compare", "--scenarios", "nothing,bottom-up:2", "head-only", "--seeds", "0", "1", "--output", "out")
    assert done.exit_code == 0, done.output
    for part in ("bottom-up:2", "macro", "memory", "±", "Written to out"):
        assert part in done.stdout
    assert "[6/6] head-only, seed 1" in done.stderr
    written = {str(path.relative_to(tmp_path / "out")) for path in files(tmp_path / "out")}
    runs = {f"runs/{name}-s{seed}.json" for name in ("nothing", "bottom-up:2", "head-only") for seed in (0, 1)}
    assert written == runs | {"study.json", "table.md", "table.csv", "table.tex", "classes.csv", "report.html"}

    before = files(tmp_path / "out" / "runs")
    again = run("compare", "--scenarios", "nothing", "bottom-up:2,head-only", "--seeds=0,1", "--output", "out")
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert "6 of 6 runs are already stored" in again.stderr
    assert files(tmp_path / "out" / "runs") == before


def test_report_makes_the_same_again_and_joins_folders(run, tmp_path):
    shown = run("compare", "--scenarios", "nothing", "--output", "one").stdout
    table = (tmp_path / "one" / "table.md").read_text()
    (tmp_path / "one" / "table.md").unlink()
    done = run("report", "one")
    assert (done.exit_code, done.stdout) == (0, shown)
    assert (tmp_path / "one" / "table.md").read_text() == table

    run("compare", "--scenarios", "head-only", "--output", "two")
    joined = run("report", "one", "two")
    assert joined.exit_code == 0, joined.output
    assert "nothing" in joined.stdout
    assert "head-only" in joined.stdout
    assert (tmp_path / "runs" / "report" / "report.html").is_file()


def test_only_compare_on_the_demo_data_has_scenarios_seeds_and_a_cache_by_default():
    def typed(command, *words):
        options = typer.main.get_command(app).commands[command].make_context(command, list(words)).params
        return Request.of(with_demo_comparison(options) if command == "compare" else options)

    demo = typed("compare")
    assert [str(policy) for policy in demo.scenarios] == list(DEMO.scenarios)
    assert (demo.seeds, demo.settings.cache, demo.settings.epochs) == (DEMO.seeds, True, DEMO.epochs)
    chosen = typed("compare", "--scenarios", "paper", "--seeds", "3", "--no-cache", "--epochs", "1")
    assert (chosen.scenarios, chosen.seeds) == (("paper",), (3,))
    assert (chosen.settings.cache, chosen.settings.epochs) == (False, 1)
    other = typed("compare", "--dataset", "elsewhere")
    assert (other.scenarios, other.seeds, other.settings.cache) == (("paper",), (0,), False)
    assert typed("search").seeds == (0,)


def test_train_saves_a_model_that_can_be_trained_on(run, tmp_path):
    done = run("train", "--policy", "bottom-up:2", "--output", "out", "--set", "weight_decay=0.1", "warmup_steps=1")
    assert done.exit_code == 0, done.output
    assert "Model, tokenizer and result.json are in out" in done.stdout
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["settings"]["training_arguments"] == {"warmup_steps": 1.0, "weight_decay": 0.1}
    refused = run("train", "--policy", "nothing", "--output", "out")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "not empty" in refused.stderr
    further = run("train", "--policy", "nothing", "--model", "out", "--output", "further")
    assert further.exit_code == 0, further.output


def test_without_output_a_training_has_a_folder_of_its_own(run, tmp_path):
    assert run("train", "--policy", "head-only").exit_code == 0
    assert (tmp_path / "runs" / "tags-head-only" / "model.safetensors").is_file()


def test_inspect_shows_units_depths_and_how_the_tokenizer_copes(run, tiny):
    done = run("inspect", tiny / "model", "--max-length", "16")
    assert done.exit_code == 0, done.output
    for part in ("embeddings", "block 3", "head", "bottom-up", "top-down", "1.00", "subwords per word"):
        assert part in done.stdout
    assert "Predicted runs of 3 epochs" in done.stdout
    assert all(run in done.stdout for run in ("full fine-tuning", "lora", "bottom-up:0.5", "side"))
    assert "Predicted runs" not in run("inspect", tiny / "model", "--no-measure").stdout
    bare = CliRunner().invoke(app, ["inspect", str(tiny / "model")])
    assert bare.exit_code == 0
    assert "block 3" in bare.stdout
    assert "subwords per word" not in bare.stdout


def test_a_configuration_file_gives_options_and_the_command_line_goes_first(run, tmp_path):
    (tmp_path / "study.toml").write_text(
        'scenarios = ["nothing", "head-only"]\nseeds = 3\nlearning-rate = 1e-3\npad_to_max_length = true\n'
        'output = "out"\nepochs = 7\n[set]\nweight_decay = 0.5\n'
    )
    done = run("compare", "--config", "study.toml", "--learning-rate", "0.002")
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "out" / "runs" / "head-only-s3.json").read_text())
    assert stored["settings"] | {"learning_rate": 0.002, "epochs": 1.0} == stored["settings"]
    assert stored["settings"]["training_arguments"] == {"weight_decay": 0.5}
    assert len(files(tmp_path / "out" / "runs")) == 2


def test_classification_runs_without_entities(run, tiny):
    done = run("compare", "--dataset", tiny / "texts", "--scenarios", "nothing", "--output", "out")
    assert done.exit_code == 0, done.output
    assert "weighted" in done.stdout
    assert "entity" not in done.stdout


def test_a_failed_run_is_shown_and_the_status_is_one(run):
    done = run("compare", "--scenarios", "nothing", "--learning-rate", "1e30", "--output", "out")
    assert done.exit_code == 1
    assert "Training diverged" in done.stdout
    assert "Run the same command again to retry the failed runs." in done.stdout


# Bad input: one sentence on standard error, status 2, nothing written

CONFIGS = {
    "unknown.toml": 'epoch = 1\nmodle = "x"\n',
    "broken.toml": "epochs = = 1\n",
    "table.toml": "[epochs]\nx = 1\n",
}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--scenarios bottom-up:9", "depth 9 is out of range"),
        ("--scenarios buttom-up:1", "known ones are nothing, bottom-up"),
        ("--scenarios bottom-up", "needs k"),
        ("--seeds one", "pass integers"),
        ("--seeds -1", "pass integers"),
        ("--epochs 0", "--epochs 0.0 is not possible"),
        ("--epochs many", "as a number"),
        ("--limit 0", "limit"),
        ("--max-length 1000", "maximum length"),
        ("--task translation", "translation"),
        ("--dataset no/such/folder", "no/such/folder"),
        ("--dataset someone/never-published", "someone/never-published"),
        ("--dataset half", "valid"),
        ("--dataset crooked", "line 2"),
        ("--dataset tagless", "train.txt"),
        ("--model half", "half"),
        ("--model someone/no-model", "someone/no-model"),
        ("--set warmup_stps=1", "did you mean warmup_steps"),
        ("--set learning_rate=1", "--learning-rate"),
        ("--device tpu", "cpu or cuda"),
        ("--output file", "is a file"),
        ("--output theirs", "theirs contains table.md but no study.json"),
        ("--config none.toml", "cannot be read"),
        ("--config unknown.toml", "did you mean epochs"),
        ("--config broken.toml", "is not TOML"),
        ("--config table.toml", "only set"),
        ("--no-such-option", "No such option"),
    ],
)
def test_bad_input_is_answered_with_one_sentence_and_status_2(run, tmp_path, words, sentence):
    (tmp_path / "file").write_text("")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "table.md").write_text("")
    for name, train in (("half", "Ada B-PER\n"), ("crooked", "Ada B-PER\nBo\n"), ("tagless", "Ada Z-PER\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.txt").write_text(train)
        if name != "half":
            for split in ("valid", "test"):
                (tmp_path / name / f"{split}.txt").write_text("Bo B-PER\n")
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    before = files(tmp_path)
    done = run("compare", *words.split())
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if "Usage" not in done.stderr:  # what the option parser itself refuses is shown with the usage
        assert done.stderr.count("\n") == 1
    assert files(tmp_path) == before


def test_results_of_another_study_are_left_alone(run, tmp_path):
    assert run("compare", "--scenarios", "head-only", "--output", "out").exit_code == 0
    before = files(tmp_path)
    refused = run("compare", "--scenarios", "head-only", "--output", "out", "--limit", "8")
    assert refused.exit_code == 2
    assert "another study" in refused.stderr
    assert files(tmp_path) == before


def test_report_refuses_what_holds_no_runs(run, tmp_path):
    done = run("report", "nowhere")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "holds no runs" in done.stderr


def test_inspect_refuses_what_is_no_model(tmp_path):
    done = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


# Real processes: stopped in the middle, then run again


def start(tiny, folder):
    words = ["compare", "--scenarios", "depths", "--model", tiny / "model", "--dataset", tiny / "tags", *QUICK]
    return subprocess.Popen(
        [sys.executable, "-m", "adaptivefreeze", *map(str, words), "--output", folder],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background job has Ctrl-C ignored, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_stopped_in_the_middle_it_goes_on_from_there(run, tiny, tmp_path, sent, status):
    runs = tmp_path / "out" / "runs"
    process = start(tiny, tmp_path / "out")
    deadline = time.monotonic() + 300
    while not list(runs.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(sent)
    _, said = process.communicate(timeout=120)
    assert process.returncode == status, said
    kept = files(runs)
    assert 0 < len([path for path in kept if path.suffix == ".json"]) < 5
    if sent == signal.SIGINT:
        assert "of 5 runs are kept" in said
        assert "Traceback" not in said
    done = run("compare", "--scenarios", "depths", "--output", "out")
    assert done.exit_code == 0, done.output
    assert len(list(runs.glob("*.json"))) == 5
    assert kept.items() <= files(runs).items()
