"""Made-up results: what the tests of studies and of the report share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adaptivefreeze.comparison.result import (
    FailedRun,
    Metrics,
    ModelRecord,
    RunResult,
    TaskRecord,
    ValidationPoint,
)

TASK = TaskRecord("ner", "towns", "f00d", 1200, ("O", "B-LOC", "I-LOC"), coverage={"words": 9000})
MODEL = ModelRecord("tiny", blocks=4, parameters=1_000_000, fingerprint="beef")


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
        timeline=({"step": 0, "mask": "embeddings+0-1 | 2-3 head", "reason": "static"},),
        environment={"python": "3.12", "device": "cpu", "threads": 1, "dtype": "float32"},
        settings={"epochs": 2, "batch_size": 16},
    )
    return replace(result, **changes)


def failed(scenario: str = "bottom-up:2", seed: int = 0, error: str = "Out of memory: try less.") -> FailedRun:
    """A run of `scenario` that failed."""
    return FailedRun(scenario, seed, False, TASK, MODEL, error, {"device": "cpu"}, {"epochs": 2, "batch_size": 16})
