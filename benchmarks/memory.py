"""Measure the peak memory and the optimizer state of full and partly frozen fine-tuning.

    python benchmarks/memory.py [--specs nothing bottom-up:6] [--batch-size 16] [--length 128] [--steps 3]
                                [--device cpu] [--output FILE]

A BERT of 12 blocks, 768 wide, with random weights is trained with AdamW on random tokens. Each run has a process of its
own. The peak is that of `PeakMemory`: what the run adds to the model, which is built before it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep_memory
from torch.utils.data import Dataset
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainerCallback, TrainingArguments

from adaptivefreeze import FreezeCallback
from adaptivefreeze.meters.memory import PeakMemory

MIB = 2**20


class Tokens(Dataset[dict[str, torch.Tensor]]):
    """`count` random sequences of `length` tokens."""

    def __init__(self, count: int, length: int) -> None:
        self._ids = torch.randint(5, 30_000, (count, length), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self._ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids % 9}


class OptimizerState(TrainerCallback):
    """Measures the optimizer state at the end of the last step, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        held = kwargs["optimizer"].state.values()
        tensors = [v for values in held for v in values.values() if isinstance(v, torch.Tensor)]
        self.bytes = sum(v.numel() * v.element_size() for v in tensors)


def run(spec: str, options: argparse.Namespace) -> dict[str, int]:
    """Train under the policy `spec` in this process and return the bytes measured."""
    keep_memory(False)
    torch.manual_seed(0)
    model = BertForTokenClassification(BertConfig(num_labels=9)).to(options.device)
    state = OptimizerState()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            max_steps=options.steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=options.device == "cpu",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Tokens(options.batch_size * options.steps, options.length),
            callbacks=[FreezeCallback(spec, quiet=True), state],
        )
        with PeakMemory(torch.device(options.device)) as peak:
            trainer.train()
    return {"peak": peak.bytes, "state": state.bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specs", nargs="+", default=["nothing", "bottom-up:6"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", help="run one spec in this process and print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(run(options.only, options)))
        return
    rows = []
    for spec in options.specs:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--only", spec], capture_output=True, text=True, check=True
        )  # fmt: skip
        rows.append((spec, json.loads(done.stdout.splitlines()[-1])))
    first = rows[0][1]
    lines = [
        f"BERT 12 × 768, AdamW, batches of {options.batch_size} × {options.length} tokens, {options.steps} steps, "
        f"float32. {describe(options.device)}.",
        "",
        f"| policy | peak, MiB | of {rows[0][0]} | optimizer state, MiB | of {rows[0][0]} |",
        "|---|---:|---:|---:|---:|",
    ]
    for spec, row in rows:
        shares = {key: f"{row[key] / first[key]:.2f}" for key in row}
        lines.append(
            f"| `{spec}` | {row['peak'] / MIB:.0f} | {shares['peak']} | {row['state'] / MIB:.0f} | {shares['state']} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Peak memory of frozen fine-tuning\n\n" + text)


if __name__ == "__main__":
    main()
