"""Overhead of the callback: step time of a Trainer with `FreezeCallback(Nothing())` against one without.

    python benchmarks/callback_overhead.py [--steps 200] [--output FILE]

Two Trainers with the same model and data, one of them with the callback, take steps alternately in one process. Each
step time is divided by the mean of the other Trainer's steps before and after it. The result is the median of these
ratios. A second pair, without the callback in either Trainer, is the control: it shows the noise of the measurement.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from machine import describe
from transformers import (
    BertConfig,
    BertForTokenClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from turns import Turns

from adaptivefreeze import FreezeCallback, Nothing

CONFIG = BertConfig(num_labels=9, num_hidden_layers=12, hidden_size=384, num_attention_heads=12, intermediate_size=1536)
WARM_UP = 5  # steps excluded from the measurement


class OneStepATurn(TrainerCallback):
    """Measures the seconds from the beginning of each step to the beginning of the next, all work between included."""

    def __init__(self, turns: Turns, number: int) -> None:
        self.seconds: list[float] = []
        self._turns = turns
        self._number = number
        self._began: float | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        if self._began is not None:
            self.seconds.append(time.perf_counter() - self._began)
            self._turns.next()
        self._turns.wait(self._number)
        self._began = time.perf_counter()


def run(turns: Turns, number: int, rows: list[dict], steps: int, callbacks: list[TrainerCallback]) -> list[float]:
    """Train with `callbacks` and return the seconds of each step."""
    turns.wait(number)
    torch.manual_seed(0)
    times = OneStepATurn(turns, number)
    try:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=8, max_steps=WARM_UP + steps + 1, report_to="none",
                disable_tqdm=True, save_strategy="no", use_cpu=True, logging_steps=5,
            )  # fmt: skip
            trainer = Trainer(
                model=BertForTokenClassification(CONFIG), args=arguments, train_dataset=rows,
                callbacks=[*callbacks, times],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    finally:
        turns.leave(number)
    return times.seconds[WARM_UP:]


def in_turn(rows: list[dict], steps: int, callbacks: list[list[TrainerCallback]]) -> list[float]:
    """Return each step time of the first Trainer over the mean of the second Trainer's steps before and after it."""
    turns = Turns(2)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, turns, number, rows, steps, callbacks[number]) for number in range(2)]
        first, second = (run.result() for run in runs)
    return [2 * own / (before + after) for own, before, after in zip(first[1:], second, second[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    ids = torch.randint(1000, 30000, (64, 64))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row % 9} for row in ids]
    text = f"BERT 12×384, batch 8 × 64, {options.steps} steps of each, taken alternately. {describe()}.\n\n"
    text += "| pair | median ratio of step times | quartiles |\n|---|---:|---:|\n"
    for name, callbacks in (
        ("`FreezeCallback(Nothing())` / without", [[FreezeCallback(Nothing(), quiet=True)], []]),
        ("without / without", [[], []]),
    ):
        low, middle, high = statistics.quantiles(in_turn(rows, options.steps, callbacks), n=4)
        text += f"| {name} | **{middle:.4f}** | {low:.4f} – {high:.4f} |\n"
    print(text)
    if options.output:
        options.output.write_text("# Overhead of the callback\n\n" + text)


if __name__ == "__main__":
    main()
