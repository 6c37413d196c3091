"""Time to full fine-tuning's quality: side networks, frozen prefixes, LoRA and shorter schedules, one process a run.

    python benchmarks/time_to_quality.py RUNS --model PATH --dataset PATH [--limit 3000] [--max-length 128]
        --methods full@2e-4 full@2e-4@0.75 lora@2e-3 bottom-up:6@2e-4 side:width=128,every=2@2e-3@6 [--seeds 0 1 2]

A method is `NAME@LEARNING RATE[@EPOCHS]`, with --epochs by default. NAME is `full`, `lora` (rank 8 on every linear
layer, alpha 16) or the spec of a policy, which runs with the cache. Each finished run is a JSON file in RUNS and is not
repeated. Seconds are processor seconds of training: everything in `Trainer.train` but evaluation. They include filling
the cache. Set OMP_NUM_THREADS=1, so that they are those of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
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


def run(task: Any, method: Method, seed: int, options: argparse.Namespace, cache: PrefixCache) -> dict[str, Any]:
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
    callbacks = [] if method.name in ("full", "lora") else [FreezeCallback(method.name, cache=cache, restore=False)]
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--eval-limit", type=int, default=1500)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--warmup", type=float, default=0.06, help="share of the steps")
    options = parser.parse_args(arguments)

    keep_memory(True)
    task = load_task(options.dataset, model=options.model, limit=options.limit, max_length=options.max_length)
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for method in (Method.parse(text, options.epochs) for text in options.methods):
            file = options.runs / f"{method}-s{seed}.json".replace("/", "_")
            if not file.exists():
                result = run(task, method, seed, options, PrefixCache())
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
