"""Energy as CodeCarbon estimates it, for a machine that counts none, beside the time of the same run.

    pip install codecarbon
    python experiments/energy/estimate.py --model MODEL --dataset FOLDER [--scenarios SPEC ...]

Each run is one epoch of 300 examples with its evaluations, in this process. CodeCarbon tracks this process alone,
without a network connection. Rows go to `estimate.jsonl` beside this file and are not repeated; the table is printed,
and written to `estimate_table.md`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from adaptivefreeze import parse_policy
from adaptivefreeze.comparison import StudySettings, run_scenario
from adaptivefreeze.comparison.records import starting_model
from adaptivefreeze.comparison.run import warm_up
from adaptivefreeze.data import Task, load_task

JOULES_PER_KWH = 3.6e6
EXAMPLES = 300
SCENARIOS = ["bottom-up:0", "bottom-up:6", "bottom-up:9", "bottom-up:12", "top-down:6", "top-down:12"]
HEADS = ["scenario", "seeds", "processor s", "wall s", "processor J", "memory J", "J", "× J", "× processor s"]


def estimated(task: Task, spec: str, seed: int, settings: StudySettings) -> dict[str, Any]:
    """Train one model and return its times in seconds and its estimated energy in joules."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA",  # energy does not depend on it, emissions do
        tracking_mode="process",
        measure_power_secs=1,
        save_to_file=False,
        log_level="error",
    )
    record = starting_model(task)[1]
    wall, processor = time.perf_counter(), time.process_time()
    tracker.start()
    try:
        run_scenario(task, parse_policy(spec), seed, settings, model=record)
    finally:
        tracker.stop()
    found = tracker.final_emissions_data
    return {
        "scenario": spec,
        "seed": seed,
        "processor_seconds": time.process_time() - processor,
        "wall_seconds": time.perf_counter() - wall,
        "processor_joules": JOULES_PER_KWH * found.cpu_energy,
        "memory_joules": JOULES_PER_KWH * found.ram_energy,
        "codecarbon": found.codecarbon_version,
        "processor": found.cpu_model,
    }


def table(rows: Sequence[dict[str, Any]], scenarios: Sequence[str]) -> str:
    """Return means over the seeds as Markdown, with ratios to the first scenario, paired by seed, ± one deviation."""
    runs = {(row["scenario"], row["seed"]): row for row in rows}
    seeds = sorted({seed for _, seed in runs})
    lines = [f"| {' | '.join(HEADS)} |", f"| --- |{' ---: |' * (len(HEADS) - 1)}"]
    for spec in scenarios:
        same = [runs[spec, seed] for seed in seeds if (spec, seed) in runs]
        first = [runs[scenarios[0], row["seed"]] for row in same]
        cells = [f"`{spec}`", str(len(same))]
        for name in ("processor_seconds", "wall_seconds", "processor_joules", "memory_joules"):
            cells.append(f"{fmean(row[name] for row in same):.0f}")
        cells.append(f"{fmean(map(joules, same)):.0f}")
        cells.append(spread([joules(row) / joules(base) for row, base in zip(same, first, strict=True)]))
        times = [row["processor_seconds"] / base["processor_seconds"] for row, base in zip(same, first, strict=True)]
        lines.append(f"| {' | '.join([*cells, spread(times)])} |")
    return "\n".join(lines) + "\n"


def joules(row: dict[str, Any]) -> float:
    return float(row["processor_joules"] + row["memory_joules"])


def spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_name("estimate.jsonl"))
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("codecarbon") is None:
        parser.error("CodeCarbon is not installed: pip install codecarbon")
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.is_file() else []
    task = load_task(options.dataset, model=options.model, limit=EXAMPLES, eval_limit=100, test_limit=100)
    settings = StudySettings(epochs=1, learning_rate=2e-4, clock="processor")
    warm_up(task, settings)
    done = {(row["scenario"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for spec in options.scenarios:
            if (spec, seed) not in done:
                rows.append(estimated(task, spec, seed, settings))
                with options.rows.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    text = table(rows, options.scenarios)
    options.rows.with_name(f"{options.rows.stem}_table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
