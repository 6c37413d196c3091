r"""Compare LoRA in all blocks of a causal language model with LoRA above a cached prefix.

    python benchmarks/lora_prefix.py --model FOLDER --data FOLDER [--top 8] [--examples 512] [--validation 200]
                                     [--methods lora-all lora-top lora-top-cached side-cached] [--batch-size 16]
                                     [--runs lora-all:rank=16,rate=1e-3,epochs=4 …] [--rows FILE] [--output FILE]

`--data` has `train.csv` and `validation.csv` with the columns `text,label`. Each text becomes an instruction,
"Review: …\nSentiment: positive", and every token counts for the loss.

Steps: the methods take steps on the same batches in turns, in one process; the median is reported. Runs: each trains
with the Trainer; training time contains filling the cache, not evaluation. An answer is right if the model finds it
more likely than the other one. Finished runs are stored in `--rows` and not repeated.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep_memory
from peft import get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from adaptivefreeze import FreezeCallback, Nothing, PrefixCache, add_side_network, find_blocks, freeze, lora_above
from adaptivefreeze.cache import CacheSession
from adaptivefreeze.side import tap_boundaries

ANSWERS = (" negative", " positive")


@dataclass(frozen=True)
class Run:
    """One run: a method and its settings."""

    method: str
    rank: int = 16
    rate: float = 1e-3
    epochs: int = 4

    @classmethod
    def parse(cls, spec: str) -> Run:
        """The run of a spec such as `lora-top-cached:rank=32,rate=2e-3`."""
        method, _, settings = spec.partition(":")
        given = dict(pair.split("=") for pair in settings.split(",") if pair)
        kinds = {"rank": int, "rate": float, "epochs": int}
        return cls(method, **{name: kinds[name](value) for name, value in given.items()})


def lora(model: nn.Module, first: int, run: Run) -> nn.Module:
    """`model` with adapters in block `first` and above."""
    return get_peft_model(model, lora_above(model, first, r=run.rank, lora_alpha=2 * run.rank, task_type="CAUSAL_LM"))


def with_side_network(model: nn.Module) -> nn.Module:
    """The model with a side network, which alone trains."""
    model.requires_grad_(False)
    add_side_network(model).requires_grad_(True)
    return model


# Method -> a model to train, given the pretrained one, the number of blocks at the top and the run; and whether the
# cache is used. A method is added by a line here.
METHODS: dict[str, tuple[Callable[[nn.Module, int, Run], nn.Module], bool]] = {
    "lora-all": (lambda model, top, run: lora(model, 0, run), False),
    "lora-top": (lambda model, top, run: lora(model, find_blocks(model).depth - top, run), False),
    "lora-top-cached": (lambda model, top, run: lora(model, find_blocks(model).depth - top, run), True),
    "side-cached": (lambda model, top, run: with_side_network(model), True),
}


class Task:
    """The instructions, tokenized, and the pretrained model."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        self.answers = [self.tokenizer(answer).input_ids for answer in ANSWERS]
        if any(len(ids) != 1 for ids in self.answers):
            raise SystemExit(f"an answer is more than one token: {self.answers}")
        self.train = self._read("train.csv", options.examples)
        self.validation = self._read("validation.csv", options.validation)

    def _read(self, name: str, count: int) -> list[dict[str, Any]]:
        with (Path(self.options.data) / name).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        by_label = [[row["text"] for row in rows if row["label"] == label] for label in ("0", "1")]
        found = []
        for texts in zip(*by_label, strict=False):
            for label, text in enumerate(texts):
                ids = self.tokenizer(f"Review: {text}\nSentiment:").input_ids[-120:]
                found.append({"ids": [*ids, *self.answers[label], self.tokenizer.eos_token_id], "label": label})
        return found[:count]

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["ids"]) for row in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row["ids"])] = torch.tensor(row["ids"])
            mask[index, : len(row["ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    def model(self, run: Run) -> nn.Module:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(self.options.model, dtype=torch.float32)
        base.config.use_cache = False
        return METHODS[run.method][0](base, self.options.top, run)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Validation loss per token, and the share of texts whose right answer is the more likely one."""
        model.eval()
        total = tokens = right = 0.0
        rows = sorted(self.validation, key=lambda row: -len(row["ids"]))
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            batch = self.collate(part)
            output = model(**batch)
            count = int((batch["labels"][:, 1:] != -100).sum())
            total, tokens = total + float(output.loss) * count, tokens + count
            for index, row in enumerate(part):
                scores = output.logits[index, len(row["ids"]) - 3, [ids[0] for ids in self.answers]]
                right += int(scores.argmax()) == row["label"]
        model.train()
        return total / tokens, right / len(rows)


def time_steps(task: Task, methods: Sequence[str], batches: int, passes: int) -> dict[str, dict[str, Any]]:
    """Steps on the same batches in turns. The first pass fills the cache and is not counted."""
    with ExitStack() as stack:
        return _time_steps(task, methods, batches, passes, stack)


def _time_steps(
    task: Task, methods: Sequence[str], batches: int, passes: int, stack: ExitStack
) -> dict[str, dict[str, Any]]:
    data = [task.train[i * task.options.batch_size : (i + 1) * task.options.batch_size] for i in range(batches)]
    runs = []
    for method in methods:
        model = task.model(Run(method)).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=True)
        run = stack.enter_context(freeze(model, Nothing(), optimizer=optimizer))
        taps = tap_boundaries(model)
        session = CacheSession(PrefixCache(), model, run.stack, taps=taps) if METHODS[method][1] else None
        if session is not None:
            session.move(run.mask)
        runs.append((method, model, optimizer, session))
    measured = {method: {"seconds": [], "processor": [], "losses": []} for method in methods}
    for number in range(passes + 1):
        for _, _, _, session in runs:
            if session is not None:
                session.next_epoch()
        for rows in data:
            for method, model, optimizer, _ in runs:
                begin, used = time.perf_counter(), time.process_time()
                loss = model(**task.collate(rows)).loss
                loss.backward()
                nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
                optimizer.step()
                optimizer.zero_grad()
                taken = time.perf_counter() - begin, time.process_time() - used
                measured[method]["losses"].append(loss.item())
                if number:
                    measured[method]["seconds"].append(taken[0])
                    measured[method]["processor"].append(taken[1])
        medians = {m: round(statistics.median(values["seconds"] or [0]), 3) for m, values in measured.items()}
        print(f"pass {number}", medians, flush=True)
    for method, _, _, session in runs:
        if session is not None and session.stats.disabled_reason:
            raise SystemExit(f"{method}: Prefix cache disabled: {session.stats.disabled_reason}")
    return measured


class EachEpoch(TrainerCallback):
    """Records the processor time of training and the mean training loss of each epoch."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self._begin = self._used = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begin = time.process_time()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._used += time.process_time() - self._begin
        losses = [line["loss"] for line in state.log_history if "loss" in line]
        steps = state.max_steps // state.num_train_epochs
        self.curve.append({"processor": self._used, "train": statistics.mean(losses[-steps:])})
        print(" ", self.curve[-1], flush=True)


def train(task: Task, run: Run) -> dict[str, Any]:
    """Train one run."""
    model = task.model(run)
    each = EachEpoch()
    freezing = FreezeCallback("nothing", cache=METHODS[run.method][1])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=task.options.batch_size,
                num_train_epochs=run.epochs,
                learning_rate=run.rate,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=True,
            ),
            train_dataset=task.train,
            data_collator=task.collate,
            callbacks=[freezing, each],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    stats = None if freezing.cache is None else freezing.cache.stats
    if stats is not None and stats.disabled_reason:
        raise SystemExit(f"{run.method}: Prefix cache disabled: {stats.disabled_reason}")
    loss, accuracy = task.evaluate(model)
    return {
        "run": asdict(run),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "hit_rate": None if stats is None else stats.hit_rate,
        "bytes": 0 if stats is None else stats.memory_bytes,
        "validation": loss,
        "accuracy": accuracy,
        "curve": each.curve,
    }


def step_table(measured: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: the median step of each method, and the first one's as a multiple of it."""
    lines = ["| method | step, s | processor s | × |", "|---|---:|---:|---:|"]
    first = statistics.median(next(iter(measured.values()))["seconds"])
    for method, values in measured.items():
        seconds, processor = (statistics.median(values[name]) for name in ("seconds", "processor"))
        lines.append(f"| {method} | {seconds:.3f} | {processor:.3f} | {first / seconds:.2f} |")
    pairs = [(m, m.removesuffix("-cached")) for m in measured if m.endswith("-cached")]
    for cached, plain in pairs:
        if plain in measured:
            both = zip(measured[cached]["losses"], measured[plain]["losses"], strict=True)
            worst = max(abs(one - other) for one, other in both)
            lines += ["", f"Largest difference between the losses of {cached} and {plain}: {worst:.1e}."]
    return lines


def run_table(rows: Sequence[dict[str, Any]], steps: int) -> list[str]:
    """Markdown: a line for each run of `steps` steps an epoch."""
    lines = [
        "| method | rank | rate | epochs | parameters | processor s | of a later step | train loss | validation loss | "
        "accuracy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        run, first, end = Run(**row["run"]), row["curve"][0], row["curve"][-1]
        later = (end["processor"] - first["processor"]) / max(1, run.epochs - 1) / steps
        cells = [run.method, run.rank, f"{run.rate:g}", run.epochs, f"{row['parameters']:,}", f"{end['processor']:.0f}"]
        cells += [f"{later:.2f}", f"{end['train']:.3f}", f"{row['validation']:.3f}", f"{100 * row['accuracy']:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--top", type=int, default=8, help="number of blocks with adapters in lora-top")
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), choices=METHODS, help="methods whose steps are timed"
    )
    parser.add_argument("--runs", nargs="*", default=[], type=Run.parse)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--validation", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--rows", type=Path, help="JSON lines of finished runs")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory(True)
    task = Task(options)
    tokens = statistics.mean(len(row["ids"]) for row in task.train)
    lines = [
        f"{describe()}. {len(task.train)} examples of {tokens:.0f} tokens on average, batches of {options.batch_size}.",
        "",
    ]
    if options.methods:
        lines += [*step_table(time_steps(task, options.methods, options.batches, options.passes)), ""]
        print("\n".join(lines), flush=True)
    done = []
    if options.rows is not None and options.rows.exists():
        done = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for run in options.runs:
        if asdict(run) in [row["run"] for row in done]:
            continue
        gc.collect()
        print(run, flush=True)
        done.append(train(task, run))
        if options.rows is not None:
            with options.rows.open("a") as stream:
                stream.write(json.dumps(done[-1]) + "\n")
    if done:
        lines += [*run_table(done, -(-len(task.train) // options.batch_size)), ""]
    text = "\n".join(lines)
    print(text)
    if options.output is not None:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
