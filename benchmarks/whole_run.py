"""Training time and test metrics of whole runs with the prefix cache, against full fine-tuning, on real data.

    python benchmarks/whole_run.py --dataset PATH [--limit 3000] [--epochs 4] [--batch-size 8] [--learning-rate 2e-4]
                                   [--policies SPEC ...] [--lora RATE ...] [--rank 8] [--output FILE]

`--policies` replaces the default rows: these policies run with the cache, beside full fine-tuning. `--lora` adds a
LoRA run (Hu et al. 2021, peft, on every linear layer of the encoder, alpha twice the rank, with a new trainable head)
for each learning rate, because LoRA needs another rate than full fine-tuning. All runs advance in turns of a few
steps in one process, so that other load on the machine affects all of them alike. The speed-up is the training time
of full fine-tuning over that of the row. Training time is that of RunResult: steps alone, including the work of the
cache. The runs share one random number generator, so scores differ a little from those of a run on its own.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import describe
from peft import LoraConfig, TaskType, get_peft_model
from turns import Turns

from adaptivefreeze import parse_policy
from adaptivefreeze.comparison.records import starting_model
from adaptivefreeze.comparison.result import RunResult
from adaptivefreeze.comparison.run import run_scenario, warm_up
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task


@dataclasses.dataclass(frozen=True)
class Row:
    """A policy with or without the cache, or LoRA with its own learning rate."""

    policy: str
    cache: bool = False
    lora_rate: float | None = None

    @property
    def name(self) -> str:
        return f"`{self.policy}`" if self.lora_rate is None else f"LoRA, learning rate {self.lora_rate:g}"


FULL = Row("nothing")
ROWS = (FULL, Row("bottom-up:3"), Row("bottom-up:3", cache=True), Row("bottom-up:4"), Row("bottom-up:4", cache=True))
HEADS = ("classifier", "score")  # names in transformers; new modules, trained in full
TURN = 10  # steps
SCORES = ("entity_f1", "macro_f1", "accuracy")


class WithLora:
    """A task whose models have LoRA adapters of this rank; only the adapters and the head train."""

    def __init__(self, task: Any, rank: int) -> None:
        self._task, self._rank = task, rank

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def new_model(self, seed: int) -> Any:
        kind = TaskType.TOKEN_CLS if self._task.kind == "ner" else TaskType.SEQ_CLS
        adapters = LoraConfig(
            task_type=kind,
            r=self._rank,
            lora_alpha=2 * self._rank,
            target_modules="all-linear",
            exclude_modules=list(HEADS),
            modules_to_save=list(HEADS),
        )
        model = self._task.new_model(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(model, adapters)


def measure(task: Any, number: int, row: Row, settings: StudySettings, model: Any, turns: Turns) -> RunResult:
    """Train one run, which advances only in its own turns."""

    def stepped(done: int, total: int) -> None:
        if done % TURN == 0:
            turns.next()
            turns.wait(number)

    turns.wait(number)
    try:
        rate = row.lora_rate or settings.learning_rate
        chosen = dataclasses.replace(settings, cache=row.cache, learning_rate=rate)
        return run_scenario(task, parse_policy(row.policy), 0, chosen, model=model, on_step=stepped)
    finally:
        turns.leave(number)


def table(rows: Sequence[Row], results: Sequence[RunResult]) -> str:
    """Return a Markdown table of the runs, each relative to full fine-tuning."""
    lines = [
        "| run | cache | parameters | train s | × | hit rate | test entity F1 | test macro F1 | test accuracy |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row, result in zip(rows, results, strict=True):
        hits = f"{result.cache_stats['hit_rate']:.2f}" if result.cache_stats else "–"
        lines.append(
            f"| {row.name} | {'yes' if row.cache else 'no'} | {result.trainable_parameters:,} | "
            f"{result.train_seconds:.1f} | "
            f"{results[0].train_seconds / result.train_seconds:.2f} | {hits} | "
            + " | ".join(_points(getattr(result.metrics, name)) for name in SCORES)
            + " |"
        )
    return "\n".join(lines) + "\n"


def _points(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--policies", nargs="+", metavar="SPEC")
    parser.add_argument("--lora", nargs="+", type=float, default=[], metavar="RATE")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    rows = [FULL, *(Row(spec, cache=True) for spec in options.policies)] if options.policies else list(ROWS)
    rows += [Row("nothing", lora_rate=rate) for rate in options.lora]
    task = load_task(options.dataset, model=options.model, limit=options.limit, max_length=options.max_length)
    # Validation has no influence on the runs and is not timed, so a few sentences suffice.
    task = dataclasses.replace(task, validation=task.validation.select(range(min(32, len(task.validation)))))
    _, model = starting_model(task)
    settings = StudySettings(epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate)
    warm_up(task, settings)
    turns = Turns(len(rows))
    tasks = [task if row.lora_rate is None else WithLora(task, options.rank) for row in rows]
    with ThreadPoolExecutor(len(rows)) as pool:
        runs = [
            pool.submit(measure, of_row, number, row, settings, model, turns)
            for number, (of_row, row) in enumerate(zip(tasks, rows, strict=True))
        ]
        results = [run.result() for run in runs]
    text = (
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, batch "
        f"{options.batch_size}, learning rate {options.learning_rate:g}, {options.model} model. {describe()}.\n\n"
        + table(rows, results)
    )
    print(text)
    if options.output:
        options.output.write_text("# Training time and quality with the prefix cache\n\n" + text)


if __name__ == "__main__":
    main()
