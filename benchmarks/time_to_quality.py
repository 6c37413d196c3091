"""Time to full fine-tuning's quality: side networks, frozen prefixes, LoRA and shorter schedules.

    python benchmarks/time_to_quality.py RUNS --model PATH --dataset PATH [--limit 3000] [--max-length 128]
        --methods full@2e-4 full@2e-4@0.75 lora@2e-3 bottom-up:6@2e-4 side:width=128,every=2@2e-3@6 [--seeds 0 1 2]

With --table the runs in RUNS are tabulated; no model is trained then.

{methods}

Each finished run is a JSON file in RUNS and is not repeated. Seconds are processor seconds of training: everything but
evaluation. They include filling the cache. Set OMP_NUM_THREADS=1, so that they are those of one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from methods import HELP, Rows, Target, add_options, markdown, read_runs, run_all, scores_of, spread


def table(rows: Sequence[Rows], epochs: float, margin: float) -> str:
    """Return the Markdown table of all runs beside full fine-tuning of `epochs` epochs at its best learning rate."""
    scores, target = scores_of(rows), Target(rows, epochs, margin)
    heads = ["method", "rate", "epochs", "seeds", "parameters", "seconds"]
    heads += [f"{split} {name}" for split in ("validation", "test") for name in scores] + ["seconds to quality", "×"]
    return markdown(
        heads,
        (
            [
                row.method.name,
                f"{row.method.rate:g}",
                f"{row.method.epochs:g}",
                f"{len(row.runs)}",
                f"{row.runs[0]['trained_parameters']:,}",
                spread(row.values("seconds"), 0),
                *(spread(row.final(name)) for name in scores),
                *(spread(row.test(name)) for name in scores),
                spread(target.reached(row), 0, absent=target.missed(row)),
                spread(target.speedups(row), 2),
            ]
            for row in rows
        ),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").format(methods=HELP), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if options.table:
        rows = read_runs(options.runs)
        if not any(row.method.name == "full" and row.method.epochs == options.epochs for row in rows):
            parser.error(f"{options.runs} has no full fine-tuning of {options.epochs:g} epochs, the quality to reach")
        print(table(rows, options.epochs, options.margin), end="")
        return
    if not (options.model and options.dataset and options.methods):
        parser.error("--model, --dataset and --methods are required without --table")
    run_all(options)


if __name__ == "__main__":
    main()
