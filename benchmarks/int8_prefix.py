"""Filling the cache in 8 bits: what a pass over the blocks takes, and how far the hidden states move.

    python benchmarks/int8_prefix.py --dataset PATH [--model MODEL] [--batches 3] [--rounds 3] [--output FILE]

One pass over the whole encoder in evaluation mode is timed in processor seconds, the least of --rounds per batch, with
linear layers as they are, in 8 bits as by `PrefixCache(compute="int8")`, and by torch's own dynamic quantisation, which
is deprecated. A training step of full fine-tuning stands beside them. The change of a hidden state is the norm of the
difference, relative to the norm of the exact one, over all tokens but padding. `quality.py --variants cached "cached,
filled in 8 bits"` measures what it does to the scores.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep_memory

from adaptivefreeze import find_blocks
from adaptivefreeze.cache.int8 import Int8Linears
from adaptivefreeze.data import load_task

EXACT, INT8, TORCH = "as they are", "in 8 bits", "torch's dynamic quantisation"


def least(call: Callable[[], Any], rounds: int) -> float:
    """Return the least processor time of a call in seconds, after one that is not timed."""
    call()
    found = math.inf
    for _ in range(rounds):
        begin = time.process_time()
        call()
        found = min(found, time.process_time() - begin)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    keep_memory(True)
    count = options.batches * options.batch_size
    task = load_task(options.dataset, model=options.model, limit=count, eval_limit=1, max_length=options.max_length)
    model: Any = task.new_model(0).eval()
    stack = find_blocks(model)
    tower = model.get_submodule(stack.tower)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(tower), {torch.nn.Linear}, dtype=torch.qint8)
    int8 = Int8Linears(list(tower.modules()), torch.device("cpu"))
    collate, examples = task.collator(), list(task.train)
    seconds = dict.fromkeys((EXACT, INT8, TORCH, "step"), 0.0)
    moved: dict[str, list[list[float]]] = {INT8: [], TORCH: []}
    tokens = 0

    for start in range(0, len(examples), options.batch_size):
        batch = collate(examples[start : start + options.batch_size])
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        real = inputs["attention_mask"].bool()
        tokens += real.shape[1]

        def in_int8(inputs: dict[str, torch.Tensor] = inputs) -> Any:
            with int8.active():
                return tower(**inputs, output_hidden_states=True)

        calls: dict[str, Callable[[], Any]] = {
            EXACT: lambda inputs=inputs: tower(**inputs, output_hidden_states=True),
            INT8: in_int8,
            TORCH: lambda inputs=inputs: quantised(**inputs, output_hidden_states=True),
        }
        with torch.no_grad():
            states = {name: [s[real] for s in call().hidden_states] for name, call in calls.items()}
            for name, call in calls.items():
                seconds[name] += least(call, options.rounds)
        seconds["step"] += least(lambda batch=batch: model(**batch).loss.backward(), options.rounds)
        for name, changes in moved.items():
            changes.append([float((s - e).norm() / e.norm()) for s, e in zip(states[name], states[EXACT], strict=True)])

    batches = len(moved[INT8])
    kinds = f"{options.batch_size} × {tokens / batches:.0f} tokens"
    lines = [
        f"{Path(options.model).name}, {Path(options.dataset).name}, {batches} batches of {kinds}, "
        f"{stack.depth} blocks, processor seconds. "
        f"A forward and backward pass of full fine-tuning: {seconds['step'] / batches:.3f} s. {describe()}.",
        "",
        "| linear layers | pass, s | speedup | of a training step | change of the hidden state after each block, % |",
        "|---|---:|---:|---:|---|",
    ]
    for name in (EXACT, INT8, TORCH):
        means = [sum(values) / batches for values in zip(*moved.get(name, ()), strict=True)][1:]
        lines.append(
            f"| {name} | {seconds[name] / batches:.3f} | {seconds[EXACT] / seconds[name]:.1f}× | "
            f"{seconds[name] / seconds['step']:.2f} | {', '.join(f'{100 * m:.0f}' for m in means) or '–'} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Filling the cache in 8 bits\n\n" + text)


if __name__ == "__main__":
    main()
