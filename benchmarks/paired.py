"""Paired runs: the same head and batches, one setting different. Finished runs are stored in a file."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student
from transformers import PrinterCallback, Trainer

from adaptivefreeze import FreezeCallback
from adaptivefreeze.comparison.run import longest_first
from adaptivefreeze.comparison.settings import StudySettings


def final_f1(task: Any, seed: int, settings: StudySettings, callback: FreezeCallback) -> float:
    """Train one run and return its final validation entity F1 in points."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = settings.arguments(folder, seed)
        arguments.eval_strategy = "no"
        trainer = Trainer(
            model=task.new_model(seed),
            args=arguments,
            train_dataset=task.train,
            eval_dataset=longest_first(task.validation),
            data_collator=task.collator(),
            compute_metrics=task.compute_metrics,
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if callback.cache is not None and callback.cache.stats.disabled_reason:
            raise SystemExit(f"Prefix cache disabled: {callback.cache.stats.disabled_reason}")
        return 100 * trainer.evaluate()["eval_entity_f1"]


class Rows:
    """Scores of finished runs by (depth, seed, variant), stored as one JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self._scores = {(row["k"], row["seed"], row["variant"]): row["f1"] for row in rows}

    def __contains__(self, key: tuple[int, int, str]) -> bool:
        return key in self._scores

    def __getitem__(self, key: tuple[int, int, str]) -> float:
        return self._scores[key]

    def add(self, k: int, seed: int, variant: str, f1: float) -> None:
        self._scores[k, seed, variant] = f1
        row = {"k": k, "seed": seed, "variant": variant, "f1": f1}
        with self._path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(row, flush=True)


def table(rows: Rows, depths: Sequence[int], variants: Sequence[str], seeds: int) -> list[str]:
    """Return a Markdown table: each variant against the first, with a 95 % t interval of the paired differences."""
    lines = [f"| k | run | mean | sd | difference to {variants[0]} | 95 % interval |", "|---:|---|---:|---:|---:|---:|"]
    for k in depths:
        base = [rows[k, seed, variants[0]] for seed in range(seeds)]
        for variant in variants:
            scores = [rows[k, seed, variant] for seed in range(seeds)]
            differences = [score - other for score, other in zip(scores, base, strict=True)]
            half = student.ppf(0.975, seeds - 1) * statistics.stdev(differences) / seeds**0.5
            mean = statistics.mean(differences)
            beside = "– | –" if variant == variants[0] else f"{mean:+.2f} | {mean - half:+.2f} … {mean + half:+.2f}"
            lines.append(
                f"| {k} | {variant} | {statistics.mean(scores):.2f} | {statistics.stdev(scores):.2f} | {beside} |"
            )
    return lines
