"""A long run with a mask that moves every few steps: memory and step time at its start and at its end.

    python benchmarks/soak.py [--steps 2000] [--every 10] [--output FILE]

The first and the last quarter of the run are compared by their medians: the resident memory of the process within 2 %,
the time of a step within 5 %. The time is processor time, relative to that of a fixed forward pass taken before each
step, because other load on the machine slows down both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
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

from adaptivefreeze import FreezeCallback, FreezeMask

BLOCKS = 6
CONFIG = BertConfig(
    num_labels=9, vocab_size=2000, num_hidden_layers=BLOCKS, hidden_size=128, num_attention_heads=4,
    intermediate_size=512,
)  # fmt: skip
DEPTHS = (1, 3, 5, 4, 2, 0)  # frozen leading blocks, in turn
MEMORY, TIME = 0.02, 0.05  # accepted relative differences


class Moves(TrainerCallback):
    """Moves the mask of a FreezeCallback every few steps, and measures each step."""

    def __init__(self, freezing: FreezeCallback, every: int) -> None:
        self.ratios: list[float] = []
        self.resident: list[int] = []
        self._freezing, self._every = freezing, every
        self._process = psutil.Process()
        self._fixed = BertForTokenClassification(CONFIG).eval()
        self._ids = torch.randint(5, 2000, (8, 32))
        self._began: float | None = None
        self._reference = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        ended = time.process_time()
        if self._began is not None:
            self.ratios.append((ended - self._began) / self._reference)
            self.resident.append(self._process.memory_info().rss)
        with torch.no_grad():
            self._fixed(self._ids)
        self._began = time.process_time()
        self._reference = self._began - ended

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self._every == 0:
            depth = DEPTHS[state.global_step // self._every % len(DEPTHS)]
            self._freezing.move(FreezeMask.first(BLOCKS, depth), "soak", state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = torch.randint(5, 2000, (256, 32))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row % 9} for row in ids]
    freezing = FreezeCallback("nothing", cache=True, quiet=True)
    moves = Moves(freezing, options.every)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=8, max_steps=options.steps, report_to="none", disable_tqdm=True,
            save_strategy="no", use_cpu=True, logging_steps=500,
        )  # fmt: skip
        trainer = Trainer(
            model=BertForTokenClassification(CONFIG), args=arguments, train_dataset=rows, callbacks=[freezing, moves]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    quarter = options.steps // 4
    stats = freezing.cache.stats
    text = (
        f"BERT {BLOCKS}×128, batch 8 × 32, {options.steps} steps, {len(freezing.timeline) - 1} moves of the mask, "
        f"prefix cache on (hit rate {stats.hit_rate:.0%}). {describe()}.\n\n"
        "| median of | first quarter | last quarter | difference | accepted |\n|---|---:|---:|---:|---:|\n"
    )
    steady = True
    for name, values, scale, accepted in (
        ("resident memory, MiB", moves.resident, 2**20, MEMORY),
        ("time of a step, relative to a forward pass", moves.ratios, 1, TIME),
    ):
        first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        text += (
            f"| {name} | {first / scale:.4g} | {last / scale:.4g} | **{last / first - 1:+.1%}** | ±{accepted:.0%} |\n"
        )
    print(text)
    if options.output:
        options.output.write_text("# Soak\n\n" + text)
    sys.exit(not steady)


if __name__ == "__main__":
    main()
