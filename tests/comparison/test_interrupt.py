"""Ctrl-C and a full disk: the study ends with one sentence, and finished runs stay."""

import errno
import os
import signal
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from adaptivefreeze.cli.main import app
from adaptivefreeze.comparison import Interrupted, ProgressListener, StudyFolder, compare, train
from adaptivefreeze.comparison.interrupt import check_interrupt, reliable_interrupts
from adaptivefreeze.errors import StudyFailed
from adaptivefreeze.policies import parse_policy

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def python_handles_interrupts():
    """A process that a shell starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptedWhileDestroyed:
    """Ctrl-C is pressed while its destructor runs, so that Python discards the exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


class PressesInDestructor(ProgressListener):
    def __init__(self, run, step):
        self.runs, self._at = 0, (run, step)

    def run_begins(self, scenario, seed):
        self.runs += 1

    def stepped(self, done, total, remaining):
        if (self.runs, done if self._at[1] > 0 else done - total) == self._at:
            InterruptedWhileDestroyed()


@pytest.mark.parametrize(("run", "step", "finished"), [(2, 2, 1), (1, 1, 0), (2, 0, 1)], ids=str)
def test_an_interrupt_that_falls_into_a_destructor_ends_the_study(task, settings, tmp_path, run, step, finished):
    progress = PressesInDestructor(run, step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=f"{finished} of 2 runs are kept"):
        compare(
            task,
            scenarios=["nothing", "bottom-up:1"],
            settings=replace(settings, epochs=1),
            output=tmp_path,
            progress=progress,
        )
    assert progress.runs == run
    assert len(StudyFolder(tmp_path).runs()) == finished
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_falls_into_a_destructor_ends_a_training(task, settings, tmp_path):
    with pytest.raises(Interrupted, match="nothing was saved"):
        train(
            task,
            parse_policy("nothing"),
            settings=replace(settings, epochs=1),
            output=tmp_path / "out",
            progress=PressesInDestructor(1, 1),
        )


def test_the_signal_is_forgotten_after_the_block():
    with pytest.raises(KeyboardInterrupt), reliable_interrupts():
        InterruptedWhileDestroyed()
    check_interrupt()
    with reliable_interrupts():
        check_interrupt()


def full_disk(monkeypatch, name):
    """Writing a file whose name contains `name` fails as on a full disk."""
    replace_file = os.replace

    def fail(source, target):
        if name in str(target):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fail)


def test_a_full_disk_ends_the_study_and_keeps_finished_runs(task, settings, tmp_path, monkeypatch):
    settings = replace(settings, epochs=1)
    arguments = {"scenarios": ["nothing", "bottom-up:1"], "settings": settings, "output": tmp_path}
    with monkeypatch.context() as broken:
        full_disk(broken, "bottom-up:1-s0.json")
        with pytest.raises(StudyFailed, match=r"No space left on device .*: 1 of 2 runs are kept in .*; run the same"):
            compare(task, **arguments)
    assert [run.scenario for run in StudyFolder(tmp_path).runs()] == ["nothing"]
    done = compare(task, **arguments)
    assert (done.ran, len(done.results)) == (1, 2)


@pytest.mark.parametrize("name", ["bottom-up:1-s0.json", "table.md"])
def test_the_command_says_so_in_one_sentence_with_status_1(tiny_folder, tmp_path, monkeypatch, name):
    words = ["compare", "--model", tiny_folder / "model", "--dataset", tiny_folder / "tags", "--epochs", 1]
    words += ["--max-length", 16, "--device", "cpu", "--output", tmp_path, "--scenarios", "nothing", "bottom-up:1"]
    full_disk(monkeypatch, name)
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert "Traceback" not in result.output
    assert (tmp_path / "runs" / "nothing-s0.json").is_file()


def test_an_interrupt_in_a_destructor_prints_no_traceback(monkeypatch):
    reported = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)

    class FailsWhileDestroyed:
        def __del__(self):
            raise ValueError("its own failure")

    def work():
        with reliable_interrupts():
            InterruptedWhileDestroyed()
            FailsWhileDestroyed()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [one.exc_type for one in reported] == [ValueError]
