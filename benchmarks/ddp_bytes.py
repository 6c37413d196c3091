"""Bytes that two processes exchange for gradients in a step, with blocks frozen, and padding with grouped lengths.

    python benchmarks/ddp_bytes.py --dataset PATH [--model MODEL] [--policies bottom-up:0 bottom-up:3 autofreeze]
                                   [--seeds 0 1 2] [--steps 8] [--limit 512] [--output FILE]

Trains with Trainer, DDP and gloo in two processes of this machine. A communication hook counts the bytes of every
bucket of gradients that DDP reduces, and those of the buckets in which every parameter is frozen, which would need no
reduction. Each policy runs with random batches and with `group_by_length` (Trainer's `train_sampling_strategy`).
Padding is the share of padded positions in all batches; the imbalance is the number of positions of the larger batch of
a step, relative to the mean of both, which is what the faster process waits for.

Reference: Kim et al. 2024, MLPerf training of BERT with batches of balanced length across processes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import torch.distributed as dist
from machine import describe
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from adaptivefreeze import FreezeCallback
from adaptivefreeze.data import Task, load_task
from adaptivefreeze.trainer.distributed import wrapped_by_ddp

SAMPLING = ("random", "group_by_length")


class Exchange(TrainerCallback):
    """Counts the bytes of reduced buckets, and the positions of batches, by step."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.reduced = self.frozen = 0
        self.positions: list[int] = []
        self.real = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        ddp = wrapped_by_ddp(self.trainer)
        assert ddp is not None
        ddp.register_comm_hook(None, self._reduce)

    def _reduce(self, _: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        values = bucket.buffer()
        self.reduced += values.nbytes
        if not any(parameter.requires_grad for parameter in bucket.parameters()):
            self.frozen += values.nbytes
        future = dist.all_reduce(values.div_(dist.get_world_size()), async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    def collate(self, collator: Any) -> Any:
        """Return a collator that also counts."""

        def collate(rows: list[dict[str, Any]]) -> Any:
            batch = collator(rows)
            self.positions.append(batch["input_ids"].numel())
            self.real += int(batch["attention_mask"].sum())
            return batch

        return collate


def train(task: Task, policy: str, sampling: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train once in both processes; return the bytes of a step, the share of padding and the imbalance."""
    exchange = Exchange()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            train_sampling_strategy=sampling,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        )
        trainer = Trainer(
            model=task.new_model(seed),
            args=arguments,
            train_dataset=task.train,
            data_collator=exchange.collate(task.collator()),
            callbacks=[FreezeCallback(policy, quiet=True), exchange],
        )
        trainer.remove_callback(PrinterCallback)
        exchange.trainer = trainer
        trainer.train()
    positions = exchange.positions[: options.steps]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (positions, exchange.real / sum(exchange.positions)))
    steps = list(zip(*(one for one, _ in gathered), strict=True))
    return {
        "reduced": exchange.reduced / options.steps,
        "frozen": exchange.frozen / options.steps,
        "padding": 1 - sum(real for _, real in gathered) / len(gathered),
        "imbalance": sum(map(max, steps)) * len(gathered) / sum(map(sum, steps)),
    }


def work(options: argparse.Namespace) -> None:
    """Run all cases in this process, which is one of two."""
    task = load_task(options.dataset, model=options.model, limit=options.limit, eval_limit=1)
    found = []
    for policy, sampling in product(options.policies, SAMPLING):
        runs = [train(task, policy, sampling, seed, options) for seed in options.seeds]
        found.append(
            {"policy": policy, "sampling": sampling, **{name: [run[name] for run in runs] for name in runs[0]}}
        )
    if dist.get_rank() == 0:
        options.found.write_text(json.dumps(found))


def spread(values: Sequence[float], factor: float, digits: int = 1) -> str:
    """Return the mean over the seeds, with the standard deviation if the seeds differ."""
    scaled = [factor * value for value in values]
    deviation = f" ± {stdev(scaled):.{digits}f}" if len(set(scaled)) > 1 else ""
    return f"{fmean(scaled):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--policies", nargs="+", default=["bottom-up:0", "bottom-up:3", "autofreeze"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--limit", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "LOCAL_RANK" in os.environ:
        work(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launcher, __file__, *sys.argv[1:], "--found", str(found)]
        subprocess.run(command, env=environment, check=True)
        rows = json.loads(found.read_text())
    lines = [
        f"{Path(options.model).name}, {Path(options.dataset).name}, 2 processes × {options.batch_size} examples, "
        f"{options.steps} steps, {len(options.seeds)} seeds, gloo. {describe()}.",
        "",
        "| policy | batches | reduced, MB a step | of that frozen, MB | padding | larger batch / mean |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        numbers = [spread(row["reduced"], 1e-6), spread(row["frozen"], 1e-6), f"{spread(row['padding'], 100)} %"]
        cells = [f"`{row['policy']}`", f"`{row['sampling']}`", *numbers, spread(row["imbalance"], 1, 3)]
        lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Gradients exchanged with frozen blocks\n\n" + text)


if __name__ == "__main__":
    main()
