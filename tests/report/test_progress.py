"""The line that is printed when a run ends."""

import io
import time

import pytest
from results import failed, made
from rich.console import Console

from adaptivefreeze.comparison.result import ValidationPoint
from adaptivefreeze.report.progress import ProgressBar


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "bottom-up:2, seed 0: 10.0 s of training, entity F1 0.8500"),
        (
            {"metrics": None, "validation": (ValidationPoint(10, 1.0, 0.7, 5.0, entity_f1=0.6),)},
            "bottom-up:2, seed 0: 10.0 s of training, validation entity F1 0.6000",
        ),
    ],
)
def test_it_shows_the_score_that_was_asked_for(changes, line):
    text = io.StringIO()
    with ProgressBar(Console(file=text), score="entity_f1") as progress:
        progress.run_ended(made(**changes))
    assert text.getvalue().endswith(f"{line}\n")


def test_it_shows_why_a_run_failed():
    text = io.StringIO()
    with ProgressBar(Console(file=text)) as progress:
        progress.run_ended(failed())
    assert "bottom-up:2, seed 0, failed. Out of memory: try less." in text.getvalue()


def lines(report):
    text = io.StringIO()
    with ProgressBar(Console(file=text)) as progress:
        report(progress)
    return text.getvalue().splitlines()


def test_without_a_terminal_each_run_begins_and_ends_with_a_line(task):
    def report(progress):
        progress.study_begins(task, 2, 0)
        progress.run_begins("nothing", 0)
        progress.stepped(1, 2, 100.0)
        progress.run_ended(made("nothing"))
        progress.run_begins("bottom-up:2", 0)
        progress.run_ended(made("bottom-up:2"))

    begins = [line for line in lines(report) if "begins" in line]
    assert begins == ["[1/2] nothing, seed 0, begins.", "[2/2] bottom-up:2, seed 0, begins. About 2 min left."]


def test_the_last_phase_of_a_search_is_shown(monkeypatch):
    now = iter([10.0, 14.0, 18.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    shown = lines(lambda progress: [progress.scoring(f"bottom-up:{done}", done, 3) for done in range(3)])
    assert shown == [
        "test split, 1 of 3: bottom-up:0",
        "test split, 2 of 3: bottom-up:1, about 8 s left",
        "test split, 3 of 3: bottom-up:2, about 4 s left",
    ]


def test_an_evaluation_that_takes_most_of_the_time_is_reported_once():
    long = made(train_seconds=30.0, eval_seconds=90.0)
    shown = lines(lambda progress: [progress.run_ended(long), progress.run_ended(long)])
    assert [line for line in shown if "--eval-limit" in line] == [
        f"Evaluation took 90 s, training 30 s: --eval-limit {long.task.train_examples} evaluates on fewer examples."
    ]
    short = made(eval_seconds=1.0)
    processor = made(train_seconds=30.0, eval_seconds=90.0, settings={"clock": "processor"})  # of training alone
    for run in (short, processor):
        assert not any("--eval-limit" in line for line in lines(lambda progress, run=run: progress.run_ended(run)))


def test_a_score_that_a_run_does_not_have_is_not_measured():
    text = io.StringIO()
    with ProgressBar(Console(file=text), score="loss") as progress:
        progress.run_ended(made())
    assert text.getvalue().endswith("loss not measured\n")
