"""Train the predictor of `SmartFRZ`: record fine-tuning runs, label, fit, evaluate, and write one JSON file.

    python experiments/smartfrz/train_predictor.py --output adaptivefreeze/policies/data/smartfrz.json

By default the embedded demo task and its pretrained encoder are used; nothing is downloaded. Each data set is used
for one fine-tuning run per learning rate and seed. The runs of `--held-out-seeds` and all runs on `--unseen` data
sets are used for evaluation only. Runs already stored in `--records` are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from fit import clock_of, examples_of, fit, judge
from record import Record, record_run

import adaptivefreeze
from adaptivefreeze.comparison.result import write_text
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task


def main(words: Sequence[str] | None = None) -> None:
    options = parser().parse_args(words)
    seen = [
        (dataset, seed, rate) for dataset in options.dataset for rate in options.learning_rates
        for seed in [*options.seeds, *options.held_out_seeds]
    ]  # fmt: skip
    unseen = [(dataset, options.seeds[0], rate) for dataset in options.unseen for rate in options.learning_rates]
    records = {run: recorded(*run, options) for run in [*seen, *unseen]}

    def chosen(runs: list[tuple[str, int, float]]) -> Any:
        return examples_of([records[run] for run in runs], options.window, options.alike)

    training = chosen([run for run in seen if run[1] in options.seeds])
    network = fit(training, seed=options.fit_seed)
    clock = clock_of(training)
    rounded = network.predictor({})
    groups = {"held-out seeds": chosen([run for run in seen if run[1] in options.held_out_seeds])}
    groups |= {Path(name).name: chosen([run for run in unseen if run[0] == name]) for name in options.unseen}
    held_out = {name: judge(rounded, examples, clock) for name, examples in groups.items() if len(examples)}
    provenance = {
        "command": command(options),
        "model": Path(options.model).name,
        "data": [Path(name).name for name in options.dataset],
        "training": {"runs": len([r for r in seen if r[1] in options.seeds]), "examples": len(training),
                     "finished": round(float(training.finished.mean()), 3)},
        "window": options.window,
        "moments_an_epoch": options.intervals,
        "alike": options.alike,
        "held_out": held_out,
        "versions": {"adaptivefreeze": adaptivefreeze.__version__, "torch": torch.__version__,
                     "transformers": transformers.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
    }  # fmt: skip
    stored = network.predictor(provenance).to_json()
    # One line per weight matrix keeps the file small and its diffs readable.
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in stored.items())
    write_text(options.output, f"{{{text}}}\n")
    print(json.dumps(provenance, indent=1))


def recorded(dataset: str, seed: int, rate: float, options: argparse.Namespace) -> Record:
    """Return the record of one run, from `--records` if it is stored there."""
    wanted = [dataset, options.model, seed, rate, options.epochs, options.batch_size, options.limit, options.max_length]
    digest = hashlib.sha256(json.dumps([*wanted, options.intervals]).encode()).hexdigest()[:12]
    path = Path(options.records) / f"{Path(dataset).name}-{rate:g}-s{seed}-{digest}.npz"
    if path.exists():
        return Record.load(path)
    print(f"{path.stem} …", flush=True)
    task = load_task(dataset, model=options.model, max_length=options.max_length, limit=options.limit)
    settings = StudySettings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=rate,
        training_arguments={"eval_strategy": "no"},
    )
    record = record_run(task, seed, settings, options.intervals)
    record.save(path)
    return record


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, required=True, help="JSON file to write the predictor to")
    made.add_argument("--records", type=Path, default=Path("runs/smartfrz"), help="folder for recorded runs")
    made.add_argument("--dataset", nargs="+", default=["demo"], help="data sets to train on: demo, folders, hub names")
    made.add_argument("--unseen", nargs="*", default=[], help="data sets used for evaluation only")
    made.add_argument("--model", default="demo")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    made.add_argument("--held-out-seeds", type=int, nargs="*", default=[2])
    made.add_argument("--learning-rates", type=float, nargs="+", default=[7e-4, 2e-4, 5e-5])
    made.add_argument("--epochs", type=float, default=3)
    made.add_argument("--batch-size", type=int, default=16)
    made.add_argument("--limit", type=int, default=240, help="training examples")
    made.add_argument("--max-length", type=int, default=64)
    made.add_argument("--intervals", type=float, default=10, help="decision points per epoch, as SmartFRZ will use")
    made.add_argument("--window", type=int, default=5, help="intervals in a history, as SmartFRZ will use")
    made.add_argument("--alike", type=float, default=0.99, help="similarity from which a block is labelled finished")
    made.add_argument("--fit-seed", type=int, default=0)
    return made


def command(options: argparse.Namespace) -> str:
    """Return the command that trains the same predictor: non-default options only, folders by their names."""
    made = parser()
    words = ["python", "experiments/smartfrz/train_predictor.py"]
    for name, value in vars(options).items():
        if name not in ("output", "records") and value != made.get_default(name):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *(Path(str(v)).name for v in values)]
    return shlex.join(words)


if __name__ == "__main__":
    main()
