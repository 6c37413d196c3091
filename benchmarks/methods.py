"""Ways of fine-tuning under one name each, trained on the same data, timed, and stored as one JSON file a run."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from backbone_finetuning import fit_with_lightning
from machine import describe, keep_memory
from transformers import PrinterCallback, Trainer

from adaptivefreeze import BottomUp, FreezeCallback, PrefixCache, find_blocks, lora_above
from adaptivefreeze.comparison.run import longest_first
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task
from adaptivefreeze.meters.memory import PeakMemory

HEADS = ("classifier", "score")  # names in transformers; new modules, trained in full
RANK = 8
ADAPTERS = ("lora", "dora", "ia3")
LIGHTNING = "backbone-finetuning"
BY_HAND = "by-hand:"  # followed by the share of the blocks
LORA_ABOVE = "lora-above:"  # followed by the number of blocks
HELP = """A method is `NAME@LEARNING RATE[@EPOCHS]`, with --epochs by default. NAME is

    full                  Trainer, all parameters
    by-hand:SHARE         Trainer, requires_grad set to False for the embeddings and this share of the blocks
    lora, dora, ia3       Trainer with PEFT: rank 8 on every linear layer, alpha 16; IA³ on PEFT's default layers
    lora-above:K          the same LoRA in the blocks above the first K, which the cache skips
    backbone-finetuning   Lightning, its callback BackboneFinetuning: the head alone in the first epoch, then the
                          encoder too, at a tenth of the rate, doubled in every further epoch
    SPEC                  Trainer with FreezeCallback, this policy and the cache; SPEC/int8 stores rows in 8 bits"""


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

    @property
    def is_policy(self) -> bool:
        """Whether a FreezeCallback trains it."""
        return self.name not in ("full", LIGHTNING, *ADAPTERS) and not self.name.startswith((BY_HAND, LORA_ABOVE))

    def callback(self) -> FreezeCallback | None:
        """Return the callback that trains it, with a cache, or None if the Trainer does so alone."""
        if self.name.startswith(LORA_ABOVE):
            return FreezeCallback("nothing", cache=True, restore=False)  # PEFT has frozen the blocks
        if not self.is_policy:
            return None
        spec, _, precision = self.name.partition("/")
        return FreezeCallback(spec, cache=PrefixCache(precision=precision or "exact"), restore=False, save="delta")

    def prepare(self, model: Any, kind: str, seed: int) -> Any:
        """Return the model to train: with adapters, or with flags set by hand."""
        if self.name in ADAPTERS or self.name.startswith(LORA_ABOVE):
            return with_adapters(model, self.name, kind, seed)
        if self.name.startswith(BY_HAND):
            stack = find_blocks(model)
            share = float(self.name.removeprefix(BY_HAND))
            frozen = stack.frozen(BottomUp(round(share * stack.depth)).initial_mask(stack))
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name not in frozen)
        return model


class TimedTrainer(Trainer):
    """A Trainer that measures processor seconds of training and records each evaluation."""

    began = 0.0
    evaluating = 0.0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.start_clock()
        return super().train(*args, **kwargs)

    def start_clock(self) -> None:
        """Start to measure, with no evaluation recorded yet."""
        self.began, self.evaluating, self.curve = time.process_time(), 0.0, list[dict[str, Any]]()

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


def with_adapters(model: Any, name: str, kind: str, seed: int) -> Any:
    """Return a PEFT model with the adapters and a trainable head."""
    from peft import IA3Config, LoraConfig, TaskType, get_peft_model

    task_type = TaskType.TOKEN_CLS if kind == "ner" else TaskType.SEQ_CLS
    common: dict[str, Any] = {"task_type": task_type, "modules_to_save": list(HEADS)}
    lora = {"r": RANK, "lora_alpha": 2 * RANK, **common}
    config: Any
    if name == "ia3":
        config = IA3Config(**common)
    elif name.startswith(LORA_ABOVE):
        config = lora_above(model, int(name.removeprefix(LORA_ABOVE)), **lora)
    else:
        config = LoraConfig(use_dora=name == "dora", target_modules="all-linear", exclude_modules=list(HEADS), **lora)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def run(task: Any, method: Method, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, and return the measurements."""
    settings = StudySettings(
        epochs=method.epochs,
        learning_rate=method.rate,
        batch_size=options.batch_size,
        training_arguments={"warmup_steps": options.warmup, "bf16": options.bf16},
    )
    freezing = method.callback()
    with tempfile.TemporaryDirectory() as folder:
        arguments = settings.arguments(folder, seed)
        with PeakMemory(arguments.device) as peak:
            model = method.prepare(task.new_model(seed), task.kind, seed)
            trainer = TimedTrainer(
                model=model,
                args=arguments,
                train_dataset=task.train,
                eval_dataset=longest_first(_limited(task.validation, options.eval_limit, task.kind)),
                data_collator=task.collator(),
                processing_class=task.tokenizer,
                compute_metrics=task.compute_metrics,
                callbacks=[freezing] if freezing else [],
            )
            trainer.remove_callback(PrinterCallback)
            began = time.perf_counter()
            loss = fit_with_lightning(trainer) if method.name == LIGHTNING else trainer.train().training_loss
            seconds, elapsed = trainer.seconds, time.perf_counter() - began
        curve = trainer.curve
        if not curve or curve[-1]["step"] != trainer.state.global_step:
            trainer.evaluate()
        test = trainer.predict(longest_first(_limited(task.test, options.eval_limit, task.kind)))
        scores = {n.removeprefix("test_"): v for n, v in test.metrics.items() if n.endswith(("_f1", "accuracy"))}
        trainer.save_model(folder)
        saved = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
    return {
        "method": str(method),
        "seed": seed,
        "seconds": seconds,
        "clock_seconds_with_evaluation": elapsed,
        "steps": trainer.state.global_step,
        "train_loss": loss if math.isfinite(loss) else None,
        "curve": curve,
        "test": scores,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "peak_memory_bytes": peak.bytes,
        "saved_bytes": saved,
        "cache": freezing.cache.stats.to_json() if freezing and freezing.cache else None,
        "machine": describe(),
    }


def _limited(split: Any, count: int, kind: str) -> Any:
    """The first `count` sentences, or as many texts, drawn: files of texts are often sorted by label."""
    chosen = split if kind == "ner" else split.shuffle(seed=0)
    return chosen.select(range(min(count, len(split))))


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add the options of `run_all` to a parser."""
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--model", default=defaults.get("model"))
    parser.add_argument("--dataset")
    parser.add_argument("--methods", nargs="+", default=defaults.get("methods"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, default=defaults.get("limit", 3000), help="training examples")
    parser.add_argument("--eval-limit", type=int, default=defaults.get("eval_limit", 1500))
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--warmup", type=float, default=0.06, help="share of the steps")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    parser.add_argument("--margin", type=float, default=0.2, help="points below full fine-tuning that count as reached")


def run_all(options: argparse.Namespace) -> None:
    """Train all methods from all seeds, and store each run; those stored already are not repeated."""
    keep_memory(True)
    task = load_task(options.dataset, model=options.model, limit=options.limit, max_length=options.max_length)
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for method in (Method.parse(text, options.epochs) for text in options.methods):
            file = options.runs / f"{method}-s{seed}.json".translate(str.maketrans("/:", "__"))
            if not file.exists():
                result = run(task, method, seed, options)
                result["settings"] = {
                    k: Path(v).name if k in ("model", "dataset") else v
                    for k, v in sorted(vars(options).items())
                    if k not in ("runs", "methods", "seeds", "table", "output")
                }
                partial = file.with_suffix(".partial")
                partial.write_text(json.dumps(result, indent=1) + "\n")
                partial.replace(file)
                last = result["curve"][-1]
                print(f"{file.stem}: {result['seconds']:.0f} s, {last}", flush=True)


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

    def values(self, name: str) -> list[float]:
        return [run[name] for run in self.runs]

    def seconds_to(self, name: str, targets: dict[int, float]) -> list[float | None]:
        """Seconds until the first evaluation with a score of the target of the seed, in points."""
        return [
            next((p["seconds"] for p in run["curve"] if 100 * p[name] >= targets[run["seed"]]), None)
            for run in self.runs
        ]


def read_runs(folder: Path) -> list[Rows]:
    """Return the stored runs by method: full fine-tuning first, then by name."""
    found: dict[Method, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        found.setdefault(Method.parse(stored["method"], 0), []).append(stored)
    rows = [Rows(m, tuple(sorted(runs, key=lambda run: run["seed"]))) for m, runs in found.items()]
    return sorted(rows, key=lambda r: (r.method.name != "full", r.method.name, r.method.epochs, r.method.rate))


def scores_of(rows: Sequence[Rows]) -> list[str]:
    """Return the names of the scores of the runs, the one that decides first."""
    return [name for name in ("macro_f1", "entity_f1", "accuracy") if name in rows[0].runs[0]["test"]]


class Target:
    """The quality to reach: that of full fine-tuning at its best learning rate, minus a margin.

    Args:
        rows: All runs.
        epochs: Epochs of full fine-tuning.
        margin: The margin in points.
    """

    def __init__(self, rows: Sequence[Rows], epochs: float, margin: float) -> None:
        self.score = scores_of(rows)[0]
        full = [r for r in rows if r.method.name == "full" and r.method.epochs == epochs]
        self.full = max(full, key=lambda r: (len(r.runs), mean(r.final(self.score))))
        self.points = {run["seed"]: 100 * run["curve"][-1][self.score] - margin for run in self.full.runs}
        self._reference = dict(zip(sorted(self.full.seeds), self._seconds(self.full), strict=True))

    def reached(self, row: Rows) -> list[float] | None:
        """Return the seconds of each seed until the target is reached, or None if a seed does not reach it."""
        return list(self._seconds(row)) if row.seeds <= set(self.points) and None not in self._seconds(row) else None

    def missed(self, row: Rows) -> str:
        """Return in words how many seeds of a row reach the target, if not all do."""
        found = sum(seconds is not None for seconds in self._seconds(row)) if row.seeds <= set(self.points) else 0
        return f"{found} of {len(row.runs)} seeds" if found else "not reached"

    def speedups(self, row: Rows) -> list[float]:
        """Return by what factor each seed reaches the target sooner than full fine-tuning; empty if one does not."""
        return [
            self._reference[s] / taken for s, taken in zip(sorted(row.seeds), self.reached(row) or (), strict=False)
        ]

    def _seconds(self, row: Rows) -> list[Any]:
        return row.seconds_to(self.score, self.points)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(values: Sequence[float] | None, digits: int = 1, *, absent: str = "–") -> str:
    """Return the mean, with the standard deviation over seeds."""
    if not values:
        return absent
    shown = f"{mean(values):.{digits}f}"
    if len(values) < 2:
        return shown
    deviation = math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1))
    return f"{shown} ± {deviation:.{digits}f}"


def markdown(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Return a Markdown table whose first column holds text, the others numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
