"""What `preflight` predicts from a few steps, beside whole runs.

    python benchmarks/preflight.py [--model demo] [--dataset demo] [--limit N] [--epochs 3] [--batch-size 16]
                                   [--scenarios nothing lora bottom-up:0.5 bottom-up:4 side] [--output FILE]

Seconds are processor seconds, so that other work on the machine changes neither side. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import describe
from methods import markdown

from adaptivefreeze.comparison.preflight import Forecast, Measured, preflight, train_measured
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task

SCENARIOS = ("nothing", "lora", "bottom-up:0.5", "bottom-up:4", "side")


def cells(predicted: Forecast, measured: Measured) -> tuple[tuple[float, float], ...]:
    """Return predicted and measured values: seconds, peak memory and cache in MB."""
    cache = 0 if measured.cache is None else measured.cache.memory_bytes
    return (
        (predicted.seconds, sum(measured.step_seconds)),
        (predicted.peak_memory_bytes / 1e6, measured.peak_memory_bytes / 1e6),
        (predicted.cache_bytes / 1e6, cache / 1e6),
    )


def page(runs: Sequence[tuple[Forecast, Measured]], command: str, subject: str) -> str:
    """Return the result as Markdown: the conclusion, the command and the table."""
    values = [cells(*run) for run in runs]
    errors = [max(abs(p / m - 1) for p, m in column if m) for column in zip(*values, strict=True)]
    heads = ["run"]
    heads += [f"{name}, {kind}" for name in ("seconds", "peak MB", "cache MB") for kind in ("predicted", "measured")]
    table = markdown(
        heads,
        (
            [predicted.scenario, *(f"{value:.1f}" for pair in row for value in pair)]
            for (predicted, _), row in zip(runs, values, strict=True)
        ),
    )
    seconds, memory, cache = (f"{math.ceil(100 * error)} %" for error in errors)
    return (
        "# Predicted and measured cost of whole runs\n\n"
        f"Predictions from a few steps are within {seconds} of the measured time, within {memory} of the peak memory "
        f"and within {cache} of the size of the cache.\n\n`{command}`: {subject}. {describe()}.\n\n{table}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)

    task = load_task(options.dataset, model=options.model, limit=options.limit, max_length=options.max_length)
    settings = StudySettings(epochs=options.epochs, batch_size=options.batch_size)
    runs = []
    for predicted in preflight(task, settings, options.scenarios, clock=time.process_time):
        if predicted.failure is not None:
            raise SystemExit(f"{predicted.scenario}: {predicted.failure}")
        with tempfile.TemporaryDirectory() as folder:
            arguments_of_run = settings.arguments(folder, seed=0)
            measured = train_measured(predicted.scenario, task, arguments_of_run, clock=time.process_time)
        runs.append((predicted, measured))
        print(predicted.scenario, cells(predicted, measured), flush=True)
    dataset = Path(options.dataset).name
    text = page(
        runs,
        f"OMP_NUM_THREADS=1 python benchmarks/preflight.py --model {Path(options.model).name} --dataset {dataset}",
        f"{task.train_examples} training examples, {options.epochs:g} epochs, batch {options.batch_size}; processor "
        "seconds of the steps",
    )
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
