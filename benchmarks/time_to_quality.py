"""Time to full fine-tuning's quality: side networks, frozen prefixes, LoRA and shorter schedules, one process a run.

    python benchmarks/time_to_quality.py RUNS --model PATH --dataset PATH [--limit 3000] [--max-length 128]
        --methods full@2e-4 full@2e-4@0.75 lora@2e-3 bottom-up:6@2e-4 side:width=128,every=2@2e-3@6 [--seeds 0 1 2]

With --table the runs in RUNS are tabulated; no model is trained then.

A method is `NAME@LEARNING RATE[@EPOCHS]`, with --epochs by default. NAME is `full`, `lora` (rank 8 on every linear
layer, alpha 16) or the spec of a policy, which runs with the cache; `side/int8` stores rows in 8 bits. Each finished
run is a JSON file in RUNS and is not repeated. Seconds are processor seconds of training, filling the cache included
and evaluation not. Set OMP_NUM_THREADS=1, so that they are those of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep_memory
from transformers import PrinterCallback, Trainer

from adaptivefreeze import FreezeCallback, PrefixCache
from adaptivefreeze.comparison.run import longest_first
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task

HEADS = ("classifier", "score")  # names in transformers; new modules, trained in full
RANK = 8


@dataclass(frozen=True)
class Method:
    """A way of fine-tuning with its learning rate and number of epochs."""

    name: str
    rate: float
    epochs: float

    @classmethod
    def parse(cls, text: str, epochs: float) -> Method:
        name, rate, *rest = text.split("@")
        return cls(name, float(rate), float(rest[0]) if rest else epochs)

    def __str__(self) -> str:
        return f"{self.name}@{self.rate:g}@{self.epochs:g}"


class TimedTrainer(Trainer):
    """A Trainer that measures processor seconds of training and records each evaluation."""

    began = 0.0
    evaluating = 0.0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.began, self.evaluating, self.curve = time.process_time(), 0.0, list[dict[str, Any]]()
        return super().train(*args, **kwargs)

    @property
    def seconds(self) -> float:
        return time.process_time() - self.began - self.evaluating

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        seconds, begin = self.seconds, time.process_time()
        metrics = super().evaluate(*args, **kwargs)
        names = ("eval_macro_f1", "eval_entity_f1", "eval_accuracy", "eval_loss")
        scores = {n.removeprefix("eval_"): metrics[n] for n in names if metrics.get(n) is not None}
        self.curve.append({"epoch": self.state.epoch, "step": self.state.global_step, "seconds": seconds, **scores})
        self.evaluating += time.process_time() - begin
        return metrics


def with_lora(model: Any, kind: str, seed: int) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    task_type = TaskType.TOKEN_CLS if kind == "ner" else TaskType.SEQ_CLS
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(
            model,
            LoraConfig(
                task_type=task_type,
                r=RANK,
                lora_alpha=2 * RANK,
                target_modules="all-linear",
                exclude_modules=list(HEADS),
                modules_to_save=list(HEADS),
            ),
        )


def run(task: Any, method: Method, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, and return the measurements."""
    settings = StudySettings(
        epochs=method.epochs,
        learning_rate=method.rate,
        batch_size=options.batch_size,
        training_arguments={"warmup_steps": options.warmup},
    )
    model: Any = task.new_model(seed)
    if method.name == "lora":
        model = with_lora(model, task.kind, seed)
    spec, _, precision = method.name.partition("/")
    cache = PrefixCache(precision=precision or "exact")
    callbacks = [] if spec in ("full", "lora") else [FreezeCallback(spec, cache=cache, restore=False)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = TimedTrainer(
            model=model,
            args=settings.arguments(folder, seed),
            train_dataset=task.train,
            eval_dataset=longest_first(task.validation.select(range(min(options.eval_limit, len(task.validation))))),
            data_collator=task.collator(),
            processing_class=task.tokenizer,
            compute_metrics=task.compute_metrics,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        outcome = trainer.train()
        seconds, elapsed = trainer.seconds, time.perf_counter() - began
        curve = trainer.curve
        if not curve or curve[-1]["step"] != outcome.global_step:
            trainer.evaluate()
        test = trainer.predict(longest_first(task.test.select(range(min(options.eval_limit, len(task.test))))))
        scores = {n.removeprefix("test_"): v for n, v in test.metrics.items() if n.endswith(("_f1", "accuracy"))}
    trained = [p for p in model.parameters() if p.requires_grad]
    return {
        "method": str(method),
        "seed": seed,
        "seconds": seconds,
        "clock_seconds_with_evaluation": elapsed,
        "steps": outcome.global_step,
        "train_loss": outcome.training_loss if math.isfinite(outcome.training_loss) else None,
        "curve": curve,
        "test": scores,
        "trained_parameters": sum(p.numel() for p in trained),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "cache": callbacks[0].cache.stats.to_json() if callbacks and callbacks[0].cache else None,
        "machine": describe(),
    }


@dataclass(frozen=True)
class Rows:
    """The runs of one method, one for each seed."""

    method: Method
    runs: tuple[dict[str, Any], ...]

    @property
    def seeds(self) -> set[int]:
        return {run["seed"] for run in self.runs}

    def final(self, name: str) -> list[float]:
        """The last validation scores, in points."""
        return [100 * run["curve"][-1][name] for run in self.runs]

    def test(self, name: str) -> list[float]:
        return [100 * run["test"][name] for run in self.runs]

    def seconds(self) -> list[float]:
        return [run["seconds"] for run in self.runs]

    def seconds_to(self, name: str, targets: dict[int, float]) -> list[float | None]:
        """Seconds until the first evaluation with a score of the target of the seed, in points."""
        return [
            next((p["seconds"] for p in run["curve"] if 100 * p[name] >= targets[run["seed"]]), None)
            for run in self.runs
        ]


def read_runs(folder: Path) -> list[Rows]:
    """The stored runs by method, those with more seeds first."""
    found: dict[Method, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        found.setdefault(Method.parse(stored["method"], 0), []).append(stored)
    rows = [Rows(m, tuple(sorted(runs, key=lambda run: run["seed"]))) for m, runs in found.items()]
    return sorted(rows, key=lambda r: (r.method.name != "full", r.method.name, r.method.epochs, r.method.rate))


def table(rows: Sequence[Rows], epochs: float, names: Sequence[str], margin: float) -> str:
    """Return the Markdown table of all runs beside full fine-tuning of `epochs` epochs at its best learning rate."""
    scores = [n for n in ("macro_f1", "entity_f1", "accuracy") if n in names]
    full = max(
        (r for r in rows if r.method.name == "full" and r.method.epochs == epochs),
        key=lambda r: (len(r.runs), statistics.mean(r.final(scores[0]))),
    )
    targets = {run["seed"]: 100 * run["curve"][-1][scores[0]] - margin for run in full.runs}
    reference = dict(zip(sorted(full.seeds), full.seconds_to(scores[0], targets), strict=True))
    head = " | ".join([f"validation {n}" for n in scores] + [f"test {n}" for n in scores])
    lines = [
        f"| method | rate | epochs | seeds | parameters | seconds | {head} | seconds to quality | × |",
        "|---|---:|---:|---:|---:|---:|" + "---:|" * (2 * len(scores) + 2),
    ]
    for row in rows:
        shared = [seed for seed in sorted(row.seeds) if seed in targets]
        reached = row.seconds_to(scores[0], targets) if set(shared) == row.seeds else [None]
        arrived = all(seconds is not None for seconds in reached)
        ratios = [reference[seed] / seconds for seed, seconds in zip(shared, reached, strict=False) if arrived]
        lines.append(
            f"| {row.method.name} | {row.method.rate:g} | {row.method.epochs:g} | {len(row.runs)} "
            f"| {row.runs[0]['trained_parameters']:,} | {_spread(row.seconds(), 0)} | "
            + " | ".join([_spread(row.final(n)) for n in scores] + [_spread(row.test(n)) for n in scores])
            + f" | {_spread(reached, 0) if arrived else 'not reached'} | {_spread(ratios, 2) if ratios else '–'} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[Any], digits: int = 1) -> str:
    """The mean, with the standard deviation over seeds."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--dataset")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--margin", type=float, default=0.2, help="points below full fine-tuning that count as reached")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--eval-limit", type=int, default=1500)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--warmup", type=float, default=0.06, help="share of the steps")
    options = parser.parse_args(arguments)
    if options.table:
        rows = read_runs(options.runs)
        print(table(rows, options.epochs, tuple(rows[0].runs[0]["test"]), options.margin), end="")
        return
    if not (options.model and options.dataset and options.methods):
        parser.error("--model, --dataset and --methods are required without --table")

    keep_memory(True)
    task = load_task(options.dataset, model=options.model, limit=options.limit, max_length=options.max_length)
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for method in (Method.parse(text, options.epochs) for text in options.methods):
            file = options.runs / f"{method}-s{seed}.json".replace("/", "_")
            if not file.exists():
                result = run(task, method, seed, options)
                result["settings"] = {
                    k: str(v) for k, v in sorted(vars(options).items()) if k not in ("methods", "seeds")
                }
                partial = file.with_suffix(".partial")
                partial.write_text(json.dumps(result, indent=1) + "\n")
                partial.replace(file)
                last = result["curve"][-1]
                print(f"{file.stem}: {result['seconds']:.0f} s, {last}", flush=True)


if __name__ == "__main__":
    main()
