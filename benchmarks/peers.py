"""The common ways of fine-tuning side by side: time to full fine-tuning's quality, quality, memory and disk.

    python benchmarks/peers.py RUNS --dataset PATH [--model demo] [--output benchmarks/results/peers.md]

All methods train in one process, one after another, on the same data, for the same steps, in batches of the same size.

{methods}

Of several rates of a method, the table shows the one with the best validation score; all are listed below it.
Parameters trained from their pretrained values have the rate of full fine-tuning, 2e-4. New parameters need about ten
times that: adapters run at 2e-3 and 4e-3, the head that Lightning trains first at 2e-3. The policy `side` multiplies
the rate by 15 itself. `full` with fewer epochs is the control: what the same time buys without any of this.

Each finished run is a JSON file in RUNS and is not repeated. Seconds are processor seconds of training: everything but
evaluation. They include filling the cache. Set OMP_NUM_THREADS=1, so that they are those of one thread. Peak memory is
that of the process above its start, with the model and the evaluations. Saved is what the method writes for each task:
the whole model, the adapters, or the trained parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from methods import HELP, Rows, Target, add_options, markdown, mean, read_runs, run_all, scores_of, spread

METHODS = (
    "full@2e-4",
    "side@2e-4",
    "bottom-up:0.5@2e-4",
    "lora@2e-3",
    "full@2e-4@1.5",
    "by-hand:0.5@2e-4",
    "autofreeze@2e-4",
    "lisa@2e-4",
    "backbone-finetuning@2e-3",
    "dora@2e-3",
    "ia3@4e-3",
    "lora@4e-3",
    "dora@4e-3",
    "ia3@2e-3",
    "full@2e-4@1",
)
TITLES = {
    "full": "full fine-tuning",
    "lora": "LoRA (PEFT)",
    "dora": "DoRA (PEFT)",
    "ia3": "IA³ (PEFT)",
    "backbone-finetuning": "BackboneFinetuning (Lightning)",
    "by-hand:0.5": "half of the blocks frozen by hand",
    "bottom-up:0.5": "half of the blocks frozen and cached",
    "side": "side network, cached",
    "autofreeze": "AutoFreeze, cached",
    "lisa": "LISA",
}


def title(row: Rows, epochs: float) -> str:
    name = TITLES.get(row.method.name, f"`{row.method.name}`")
    return name if row.method.epochs == epochs else f"{name}, {row.method.epochs:g} epochs"


def at_best_rate(rows: Sequence[Rows]) -> list[Rows]:
    """Return one row for each name and number of epochs: the one with the best validation score."""
    score = scores_of(rows)[0]
    best: dict[tuple[str, float], Rows] = {}
    for row in rows:
        key = row.method.name, row.method.epochs
        if key not in best or mean(row.final(score)) > mean(best[key].final(score)):
            best[key] = row
    return list(best.values())


def table(rows: Sequence[Rows], epochs: float, margin: float) -> str:
    """Return the Markdown table of the rows, those first that reach the quality soonest."""
    scores, target = scores_of(rows), Target(rows, epochs, margin)
    heads = ["method", "rate", "seconds to quality", "×", "all seconds"]
    heads += [f"{split} {name}" for split in ("validation", "test") for name in scores]
    heads += ["trained parameters", "peak MB", "saved MB"]
    ordered = sorted(rows, key=lambda row: (-mean(target.speedups(row) or [0]), mean(row.values("seconds"))))
    return markdown(
        heads,
        (
            [
                title(row, epochs),
                f"{row.method.rate:g}",
                spread(target.reached(row), 0, absent=target.missed(row)),
                spread(target.speedups(row), 2),
                spread(row.values("seconds"), 0),
                *(spread(row.final(name)) for name in scores),
                *(spread(row.test(name)) for name in scores),
                f"{row.runs[0]['trained_parameters']:,}",
                spread([value / 1e6 for value in row.values("peak_memory_bytes")], 0),
                spread([value / 1e6 for value in row.values("saved_bytes")]),
            ]
            for row in ordered
        ),
    )


def conclusion(rows: Sequence[Rows], epochs: float, margin: float) -> str:
    """Return which methods reach the quality and how soon, and which do not."""
    target = Target(rows, epochs, margin)
    others = [row for row in rows if row is not target.full]
    reached = sorted((r for r in others if target.speedups(r)), key=lambda r: -mean(target.speedups(r)))
    missed = [row for row in others if not target.speedups(row)]
    goal = f"full fine-tuning's validation {target.score} minus {margin:g} points"
    sentences = []
    if reached:
        times = [f"{title(r, epochs)} {mean(target.speedups(r)):.2f} times as fast" for r in reached]
        sentences.append(f"{goal[0].upper()}{goal[1:]} is reached by {', '.join(times)}.")
    if missed:
        full = mean(target.full.final(target.score))
        short = [f"{title(r, epochs)} ({mean(r.final(target.score)) - full:+.1f})" for r in missed]
        sentences.append(
            f"{'Not by' if reached else f'No method reaches {goal}:'} {', '.join(short)} points at the end."
        )
    return " ".join(sentences)


def page(rows: Sequence[Rows], options: argparse.Namespace) -> str:
    """Return the result as Markdown: the conclusion, the command, the machine, and the tables."""
    best, run = at_best_rate(rows), rows[0].runs[0]
    score, settings = scores_of(rows)[0], run["settings"]
    grid = markdown(
        ["method", "rate", f"validation {score}"],
        ([title(r, options.epochs), f"{r.method.rate:g}", spread(r.final(score))] for r in rows),
    )
    dataset = Path(settings["dataset"]).name
    command = f"OMP_NUM_THREADS=1 python benchmarks/peers.py RUNS --dataset {dataset} --model {settings['model']}"
    return (
        "# Ways of fine-tuning side by side\n\n"
        f"{conclusion(best, options.epochs, options.margin)}\n\n"
        f"`{command} --limit {settings['limit']} --eval-limit {settings['eval_limit']} --epochs {settings['epochs']}`, "
        f"batch {settings['batch_size']}, {len(rows[0].runs)} seed(s). {run['machine']}.\n\n"
        f"{table(best, options.epochs, options.margin)}\n"
        f"All rates that were tried:\n\n{grid}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").format(methods=HELP), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, model="demo", limit=1500, eval_limit=700, methods=list(METHODS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if not options.dataset:
        parser.error("--dataset is required")
    run_all(options)
    text = page(read_runs(options.runs), options)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
