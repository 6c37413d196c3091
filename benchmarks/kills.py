"""Exact resume: training runs that are killed at random moments and resumed end like runs that are never stopped.

    python benchmarks/kills.py [--count 200] [--first-seed 1000] [--processes 1] [--output FILE]

Each seed draws a policy from those of the test suite, a kind of cache (off, memory, disk, two stored passes, dropout on
rows), the interval of checkpoints, gradient accumulation, and the moment of the kill: in a step, one in three in the
last pass over the data, or between the two writes of a checkpoint. The resumed run starts from a new model, callback
and cache. Its weights, losses and timeline must be those of the run that is never stopped, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from kills import CACHES, MOMENTS, STEPS, STEPS_PER_EPOCH, check, random_kill
from machine import describe

gc.freeze()  # each Trainer collects garbage when it begins, and need not visit the imported modules


def outcome_of(seed: int) -> str:
    """Return "equal", or the difference."""
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            check(random_kill(seed), Path(folder))
    except Exception as error:
        traceback.print_exc()
        return f"**{type(error).__name__}: {error}**"
    return "equal"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.count)
    lines, drawn = [], Counter[str]()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for seed, outcome in zip(seeds, pool.map(outcome_of, seeds), strict=True):
            kill = random_kill(seed)
            last_pass = kill.step >= STEPS - STEPS_PER_EPOCH
            drawn.update({f"cache {kill.cache}": 1, f"killed {kill.moment}": 1, "in the last pass": last_pass})
            drawn[outcome] += 1
            lines.append(f"| {seed} | {kill} | {outcome} |")
            print(lines[-1], flush=True)
    equal = drawn["equal"]
    counts = ", ".join(f"{name} {drawn[name]}" for name in [*(f"cache {c}" for c in CACHES)])
    moments = ", ".join(f"{name} {drawn[name]}" for name in [*(f"killed {m}" for m in MOMENTS), "in the last pass"])
    text = (
        f"**{equal} of {len(seeds)}** runs that were killed and resumed end bit-equal to the run that was never stopped"
        f" (seeds {seeds[0]} to {seeds[-1]}). Drawn: {counts}; {moments}. {describe()}.\n\n"
        "| seed | run | weights, losses, timeline |\n|---:|---|---|\n" + "\n".join(lines) + "\n"
    )
    print(text.splitlines()[0])
    if options.output:
        options.output.write_text("# Kills\n\n" + text)
    sys.exit(equal != len(seeds))


if __name__ == "__main__":
    main()
