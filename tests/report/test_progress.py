"""The line that is printed when a run ends."""

import io

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
