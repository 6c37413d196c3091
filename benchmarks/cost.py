"""Measured and predicted step time of each policy, relative to a full step, on a 12×768 BERT.

    python benchmarks/cost.py [--device cpu|cuda] [--rounds 5] [--output benchmarks/results/cost.md]

Each round runs one step of every policy on one model. A figure is the median over rounds of (step / full step of the
same round), so that a slow phase of the machine affects both. On a CPU there are two tables. In the first, freed
memory is returned to the system, the default of the C library, which adds page faults to each step. In the second,
the process keeps freed memory; this is the case that the cost model predicts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from machine import describe, keep_memory
from transformers import BertConfig, BertForTokenClassification

from adaptivefreeze import BottomUp, HeadOnly, Interleaved, Nothing, TopDown, find_blocks, freeze
from adaptivefreeze.model.cost import StepShape, step_ratio

POLICIES = (
    Nothing(),
    *(BottomUp(k) for k in (3, 6, 9, 12)),
    *(TopDown(k) for k in (3, 6, 9, 12)),
    Interleaved(2),
    HeadOnly(),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--output", type=Path)
    options = arguments.parse_args()

    torch.manual_seed(0)
    model = BertForTokenClassification(BertConfig(num_labels=9)).to(options.device).train()
    stack = find_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(1000, 30000, (options.batch, options.tokens), device=options.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids % 9}

    def step() -> float:
        if options.device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if options.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    shape = StepShape(options.batch, options.tokens)
    text = (
        f"BERT 12×768, batch {options.batch} × {options.tokens} tokens, AdamW, clipping; {options.rounds} rounds. "
        f"{describe(options.device)}.\n"
    )
    for kept in (False, True) if options.device == "cpu" else (None,):
        if kept is not None:
            keep_memory(kept)
        seconds: dict[str, list[float]] = {str(policy): [] for policy in POLICIES}
        for _ in range(options.rounds):
            for policy in POLICIES:
                with freeze(model, policy, optimizer=optimizer):
                    step()  # not timed: it creates the optimizer state of thawed parameters
                    seconds[str(policy)].append(step())
        full = seconds["nothing"]
        memory = {True: "Freed memory kept: a", False: "Freed memory returned: a", None: "A"}[kept]
        text += (
            f"\n{memory} full step takes {statistics.median(full):.3f} s (median).\n\n"
            "| policy | measured step / full | predicted | predicted / measured |\n|---|---:|---:|---:|\n"
        )
        for policy in POLICIES:
            measured = statistics.median(s / f for s, f in zip(seconds[str(policy)], full, strict=True))
            predicted = step_ratio(stack, policy.initial_mask(stack), shape)
            text += f"| `{policy}` | {measured:.3f} | {predicted:.3f} | {predicted / measured:.2f} |\n"
    print(text)
    if options.output:
        options.output.write_text("# Step time by policy: measured and predicted\n\n" + text)


if __name__ == "__main__":
    main()
