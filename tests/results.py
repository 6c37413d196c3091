"""Made-up results, for the tests of comparisons and of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptivefreeze import FreezeMask, Timeline, parse_policy
from adaptivefreeze.comparison.folder import StudyFolder
from adaptivefreeze.comparison.result import (
    FailedRun,
    Metrics,
    ModelRecord,
    RunResult,
    TaskRecord,
    ValidationPoint,
)
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.model.timeline import Change
from adaptivefreeze.policies import is_full_fine_tuning
from adaptivefreeze.search import DepthSearch, Outcome
from adaptivefreeze.search.result import estimates

TASK = TaskRecord("ner", "towns", "f00d", 1200, ("O", "B-LOC", "I-LOC"), coverage={"words": 9000})
MODEL = ModelRecord("tiny", blocks=4, parameters=1_000_000, fingerprint="beef")

UNFROZEN = tuple(Timeline([Change(0, FreezeMask(MODEL.blocks), "static")]).to_json())
CHANGING = tuple(
    Timeline(
        [
            Change(0, FreezeMask(4), "start"),
            Change(5, FreezeMask.first(4, 2), "holds"),
            Change(10, FreezeMask.first(4, 1), "dropped"),
            Change(12, FreezeMask.first(4, 2), "holds"),
        ]
    ).to_json()
)

SEARCH_SCORES = {0: (0.90, 0.91), 2: (0.905, 0.908), 4: (0.70, 0.72)}


def made(
    scenario: str = "bottom-up:2",
    seed: int = 0,
    *,
    seconds: float = 10.0,
    macro_f1: float = 0.8,
    curve: Sequence[tuple[float, float]] = ((5.0, 0.7), (10.0, 0.8)),
    **changes: Any,
) -> RunResult:
    """A result of `scenario` that took `seconds`; `curve` is (training seconds, validation macro F1)."""
    result = RunResult(
        scenario=scenario,
        seed=seed,
        cache=False,
        task=TASK,
        model=MODEL,
        metrics=Metrics(
            0.97, macro_f1, 0.96, 0.85, {"LOC": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 7}}
        ),
        validation=tuple(
            ValidationPoint(step=10 * i, epoch=float(i), macro_f1=score, seconds=at)
            for i, (at, score) in enumerate(curve, 1)
        ),
        train_loss=0.25,
        train_seconds=seconds,
        eval_seconds=1.5,
        steps=20,
        samples_per_second=120.0,
        trainable_parameters=400_000,
        frozen_fraction=0.6,
        predicted_step_ratio=0.5,
        peak_memory_bytes=300 * 2**20,
        energy_joules=None,
        timeline=tuple(Timeline([Change(0, FreezeMask.first(MODEL.blocks, 2), "static")]).to_json()),
        environment={"python": "3.12", "device": "cpu", "threads": 1, "dtype": "float32"},
        settings={"epochs": 2, "batch_size": 16},
        full_fine_tuning=is_full_fine_tuning(parse_policy(scenario), MODEL.blocks),
    )
    return replace(result, **changes)


def failed(scenario: str = "bottom-up:2", seed: int = 0, error: str = "Out of memory: try less.") -> FailedRun:
    """A run of `scenario` that failed."""
    return FailedRun(scenario, seed, False, TASK, MODEL, error, {"device": "cpu"}, {"epochs": 2, "batch_size": 16})


def folder_of(path: Path, *runs: RunResult | FailedRun) -> Path:
    """Store `runs` in a study folder at `path`."""
    folder = StudyFolder(path)
    folder.claim(TASK, MODEL, StudySettings())
    for run in runs:
        folder.store(run)
    return path


def searched(**changes: Any) -> DepthSearch:
    """The result of a search for a depth with two seeds."""
    sure = estimates(SEARCH_SCORES, 2)
    outcomes = [
        Outcome(
            f"bottom-up:{depth}",
            "depth",
            depth=depth,
            scores=scores,
            estimate=sure[depth],
            seconds=100.0 - 20 * depth,
            speedup=100 / (100 - 20 * depth),
            memory=2.0**20 * (50 - depth),
            test={"macro_f1": 0.8875} if depth < 4 else {},
        )
        for depth, scores in SEARCH_SCORES.items()
    ]
    beside = Outcome(
        "top-down:2,embeddings=true", "baseline", scores=(0.6, 0.62), estimate=estimates({0: (0.6, 0.62)}, 2)[0]
    )
    lost = Outcome("bottom-up:3", "depth", depth=3, error="Out of memory: <b>try less</b>.")
    found = DepthSearch(
        title="data set towns & more",
        metric="macro_f1",
        replicates=("seed 0", "seed 1"),
        tolerance=0.005,
        outcomes=(*outcomes, lost),
        baselines=(replace(beside, seconds=80.0, speedup=1.25),),
        best=outcomes[1],
        fast=outcomes[1],
        conclusion=("The best k is 2.",),
        study="towns",
        storage="sqlite:///x/study.db",
    )
    return replace(found, **changes)
