"""Cost of measuring each signal, as a share of a full training step, on a 12×768 BERT with random weights.

    python benchmarks/signals.py [--device cpu|cuda] [--rounds 5] [--batch 16 --tokens 128] [--signals NAME ...]

Nothing is downloaded. Each round runs one step, with AdamW and gradient clipping as in Trainer, and measures every
signal within it. A figure is the median over rounds of (time of the measurement / time of the step). `per step` is
the cost of every step, `per decision` the cost at a decision point, and `total` the sum for a decision every
`--every` steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from transformers import BertConfig, BertForTokenClassification

from adaptivefreeze import find_blocks
from adaptivefreeze.signals import MEASURES, SignalCollector

BLOCKS = 12


def seconds(device: str, work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes, device synchronization included."""
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure(device: str, rounds: int, batch: int, tokens: int, every: int, signals: list[str]) -> list[str]:
    """Return the table rows, one per signal."""
    torch.manual_seed(0)
    model = BertForTokenClassification(BertConfig(num_labels=9, num_hidden_layers=BLOCKS)).to(device).train()
    stack = find_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(1000, 30000, (batch, tokens), device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids % 9}
    collectors = {name: SignalCollector(frozenset({name}), model, stack) for name in signals}
    paid: dict[str, list[tuple[float, float]]] = {name: [] for name in signals}

    def clip_and_step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for number in range(-1, rounds):  # the first round is a warm-up: it creates buffers and optimizer state
        whole = seconds(device, lambda: model(**inputs).loss.backward())
        for collector in collectors.values():
            collector.gradients_ready(None)  # so that the timed call adds to an existing sum, as in most steps
        usual = {n: seconds(device, lambda w=w: w.gradients_ready(None)) for n, w in collectors.items()}  # type: ignore[misc]
        due = {n: seconds(device, lambda w=w: w.gradients_ready(1)) for n, w in collectors.items()}  # type: ignore[misc]
        whole += seconds(device, clip_and_step)
        after = {n: seconds(device, lambda w=w: w.optimizer_stepped(1)) for n, w in collectors.items()}  # type: ignore[misc]
        whole += seconds(device, optimizer.zero_grad)
        for name, collector in collectors.items():
            reading = seconds(device, collector.read) + seconds(device, collector.reset)
            if number >= 0:
                paid[name].append((usual[name] / whole, (due[name] - usual[name] + after[name] + reading) / whole))
    lines = []
    for name, shares in paid.items():
        step, moment = (statistics.median(column) for column in zip(*shares, strict=True))
        total = step + max(0.0, moment) / every
        lines.append(f"| {name} | {batch} × {tokens} | {step:.2%} | {max(0.0, moment):.1%} | {total:.2%} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--signals", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        f"BERT 12×768, AdamW, gradient clipping; {options.rounds} rounds. {describe(options.device)}.",
        "",
        f"| signal | batch | per step | per decision | total, every {options.every} steps |",
        "|---|---|---:|---:|---:|",
    ]
    for batch, tokens in zip(options.batch, options.tokens, strict=True):
        lines += measure(options.device, options.rounds, batch, tokens, options.every, options.signals)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Cost of measuring the signals\n\n" + text)


if __name__ == "__main__":
    main()
