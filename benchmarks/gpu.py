"""Freezing, the prefix cache, side networks and LoRA on one CUDA device, in less than nine minutes.

    python benchmarks/gpu.py [--seconds 420] [--rounds 2] [--epochs 4] [--model PATH --dataset PATH] [--output FILE]
    python benchmarks/gpu.py --device cpu --small

A BERT of BERT-base's shape with random weights is trained by a Trainer on random tokens, in bf16 with batches of
32 × 128. Nothing is downloaded. A round runs every row once; the number of steps is chosen so that the rounds fit into
--seconds. Ratios are taken within a round, and the median over rounds is shown. A steady step is the shortest epoch
after the first, divided by its steps. A whole run is `Trainer.train()`, with the filling of the cache in the first
epoch. Memory is the peak of PyTorch's allocator above the model, rows included. Energy is that of the GPU (NVML, needs
`nvidia-ml-py`), or of the processor (RAPL).

Then the fp32 losses of short trainings are compared with those on the CPU, and on a CUDA device the places are listed
at which the host waits for it in steps that the cache serves. With --model and --dataset, a pretrained model is
fine-tuned on real data as well. --small is a model of 64 dimensions in fp32, to try the script on a CPU.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package does not have to be installed

import torch
from machine import describe, keep_memory
from torch.utils.data import Dataset
from transformers import BertConfig, BertForTokenClassification, PrinterCallback, Trainer, TrainerCallback
from transformers import TrainingArguments as Arguments

from adaptivefreeze import FreezeCallback, PrefixCache, add_side_network, freeze
from adaptivefreeze.cache import CacheSession, move_batch
from adaptivefreeze.meters.energy import EnergyMeter
from adaptivefreeze.meters.memory import PeakMemory
from adaptivefreeze.side.attach import tap_boundaries

LABELS = 9
TOLERANCE = 1e-3
PACKAGE = Path(sys.modules["adaptivefreeze"].__file__ or "").parent


@dataclass(frozen=True)
class Shape:
    """A BERT and its batches."""

    blocks: int = 12
    width: int = 768
    heads: int = 12
    batch: int = 32
    tokens: int = 128
    bf16: bool = True
    vocabulary: int = 30_522

    def model(self, dropout: float = 0.1) -> BertForTokenClassification:
        """A new model with random weights, the same in every call."""
        torch.manual_seed(0)
        return BertForTokenClassification(
            BertConfig(
                vocab_size=self.vocabulary,
                hidden_size=self.width,
                num_hidden_layers=self.blocks,
                num_attention_heads=self.heads,
                intermediate_size=4 * self.width,
                num_labels=LABELS,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )


BASE = Shape()
SMALL = Shape(blocks=4, width=64, heads=2, batch=4, tokens=16, bf16=False, vocabulary=1000)


@dataclass(frozen=True)
class Row:
    """One way to fine-tune. Without a policy, a plain Trainer."""

    name: str
    policy: str | None = None
    cache: bool = False
    lora: bool = False


@dataclass
class Run:
    """What one training took."""

    step: float
    whole: float
    peak: int
    joules: float | None
    hits: float | None


class Tokens(Dataset[dict[str, torch.Tensor]]):
    """Random sequences of equal length."""

    def __init__(self, count: int, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(5, shape.vocabulary, (count, shape.tokens), generator=generator)
        self._mask = torch.ones(shape.tokens, dtype=torch.long)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self._ids[index]
        return {"input_ids": ids, "attention_mask": self._mask, "labels": ids % LABELS}


class EpochTimer(TrainerCallback):
    """Measures the seconds of each epoch. It waits for the device at the ends of epochs only."""

    def __init__(self, device: str) -> None:
        self.seconds: list[float] = []
        self._device = device
        self._begin = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begin = now(self._device)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(now(self._device) - self._begin)


class Waits(TrainerCallback):
    """Makes PyTorch report in the last epoch where the host waits for the CUDA device."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if round(state.epoch or 0) == self._epochs - 1:
            torch.cuda.set_sync_debug_mode("warn")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


def now(device: str) -> float:
    """Return the time when the device has finished all work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rows_for(shape: Shape) -> list[Row]:
    """Full fine-tuning first, then what is compared with it."""
    depths = [shape.blocks * quarter // 4 for quarter in (1, 2, 3)]
    rows = [Row("full")]
    for depth in depths:
        rows += [Row(f"`bottom-up:{depth}`", f"bottom-up:{depth}")]
        rows += [Row(f"`bottom-up:{depth}`, cache", f"bottom-up:{depth}", cache=True)]
    return [*rows, Row("`side`, cache", "side", cache=True), Row("LoRA on all blocks", lora=True)]


@contextmanager
def trainer_for(row: Row, shape: Shape, device: str, steps: int, epochs: int, extra: Any = ()) -> Iterator[Trainer]:
    """A Trainer for `row`, with the model on its device."""
    model: Any = shape.model()
    if row.lora:
        from peft import LoraConfig, TaskType, get_peft_model

        adapters = LoraConfig(
            task_type=TaskType.TOKEN_CLS,
            r=8,
            lora_alpha=16,
            target_modules="all-linear",
            exclude_modules=["classifier"],
            modules_to_save=["classifier"],
        )
        model = get_peft_model(model, adapters)
    freezing = [] if row.policy is None else [FreezeCallback(row.policy, cache=row.cache, quiet=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            output_dir=folder,
            per_device_train_batch_size=shape.batch,
            num_train_epochs=epochs,
            learning_rate=5e-5,
            bf16=shape.bf16,
            use_cpu=device == "cpu",
            # The Trainer waits for the device in every step unless these two are set.
            logging_nan_inf_filter=False,
            accelerator_config={"non_blocking": device == "cuda"},
            dataloader_pin_memory=device == "cuda",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=Tokens(steps * shape.batch, shape), callbacks=[*freezing, *extra]
        )
        trainer.remove_callback(PrinterCallback)
        yield trainer


def cache_of(trainer: Trainer) -> PrefixCache | None:
    """The cache of the Trainer's FreezeCallback, which must not have been disabled."""
    callbacks = [c for c in trainer.callback_handler.callbacks if isinstance(c, FreezeCallback)]
    cache = callbacks[0].cache if callbacks else None
    if cache is not None and cache.stats.disabled_reason:
        raise SystemExit(f"Prefix cache disabled: {cache.stats.disabled_reason}")
    return cache


def measure(row: Row, shape: Shape, device: str, steps: int, epochs: int) -> Run:
    """Train once."""
    timer = EpochTimer(device)
    with trainer_for(row, shape, device, steps, epochs, [timer]) as trainer:
        meter = EnergyMeter.of(torch.device(device))
        with PeakMemory(torch.device(device)) as peak:
            begin = now(device)
            if meter is not None:
                meter.start()
            trainer.train()
            whole = now(device) - begin
            if meter is not None:
                meter.stop()
        cache = cache_of(trainer)
        hits = None if cache is None else cache.stats.hit_rate
        return Run(min(timer.seconds[1:]) / steps, whole, peak.bytes, None if meter is None else meter.joules, hits)


def table(rows: Sequence[Row], rounds: Sequence[Sequence[Run]]) -> list[str]:
    """Return a Markdown table of the medians over rounds."""
    lines = [
        "| run | steady step, ms | of full | whole run, s | of full | peak memory, MiB | joules | hit rate |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for index, row in enumerate(rows):
        runs = [done[index] for done in rounds]
        step = statistics.median(run.step / done[0].step for run, done in zip(runs, rounds, strict=True))
        whole = statistics.median(run.whole / done[0].whole for run, done in zip(runs, rounds, strict=True))
        joules = [run.joules for run in runs if run.joules is not None]
        hits = runs[-1].hits
        lines.append(
            f"| {row.name} | {1000 * statistics.median(run.step for run in runs):.1f} | {step:.3f} "
            f"| {statistics.median(run.whole for run in runs):.1f} | {whole:.3f} "
            f"| {max(run.peak for run in runs) / 2**20:.0f} | {f'{statistics.median(joules):.0f}' if joules else '–'} "
            f"| {'–' if hits is None else f'{hits:.2f}'} |"
        )
    return lines


def performance(shape: Shape, device: str, *, seconds: float, rounds: int, epochs: int) -> list[str]:
    """Measure all rows, in as many rounds as fit into `seconds`."""
    rows = rows_for(shape)
    begin = time.perf_counter()
    step = measure(rows[0], shape, device, 4, 2).step  # and everything is warm
    warm = time.perf_counter() - begin
    left = seconds - warm
    steps = max(4, min(100, int(left / rounds / (len(rows) * (epochs * step)) * 0.7)))
    done: list[list[Run]] = []
    for number in range(rounds):
        if number and (time.perf_counter() - begin) * (number + 1) / number > seconds:
            break
        done.append([])
        for row in rows:
            done[-1].append(measure(row, shape, device, steps, epochs))
            print(f"{row.name}: {1000 * done[-1][-1].step:.1f} ms a step", file=sys.stderr, flush=True)
    precision = "bf16" if shape.bf16 else "fp32"
    return [
        f"BERT {shape.blocks} × {shape.width}, {precision}, batches of {shape.batch} × {shape.tokens}, {epochs} epochs "
        f"of {steps} steps, AdamW; median of {len(done)} rounds.",
        "",
        *table(rows, done),
    ]


def losses(policy: str, device: str, *, cached: bool) -> list[float]:
    """Return the losses of six steps in fp32, without dropout because random numbers differ between devices."""
    model = replace(SMALL, width=128).model(dropout=0.0)
    if policy == "side":
        add_side_network(model, 64, layers=1, dropout=0)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(5, SMALL.vocabulary, (8, 32), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(32) < torch.tensor([32, 20, 9, 32, 31, 5, 32, 17])[:, None]).long()
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": (ids % LABELS).masked_fill(mask == 0, -100)}
    cache, found = PrefixCache(memory="100MB"), []
    with freeze(model, policy, optimizer=optimizer) as run:
        session = CacheSession(cache, model, run.stack, taps=tap_boundaries(model)) if cached else None
        if session is not None:
            session.move(run.mask)
        for _ in range(6):
            loss = model(**move_batch(inputs, device)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        if session is not None:
            session.detach()
            assert cache.stats.hits == 8 * 5, cache.stats
    return found


def agreement(device: str) -> tuple[list[str], bool]:
    """Compare the losses of short trainings with those on the CPU, uncached."""
    lines = ["| policy | cache | largest relative difference |", "|---|---|---:|"]
    agree = True
    for policy, caches in (("nothing", (False,)), ("bottom-up:2", (False, True)), ("side", (False, True))):
        expected = losses(policy, "cpu", cached=False)
        for cached in caches:
            pairs = zip(expected, losses(policy, device, cached=cached), strict=True)
            worst = max(abs(a - b) / abs(a) for a, b in pairs)
            agree &= worst < TOLERANCE
            lines.append(f"| `{policy}` | {'yes' if cached else 'no'} | {worst:.1e} |")
    verdict = "agree" if agree else "**do not agree**"
    return [
        f"Losses of six fp32 steps on {device} and on the CPU {verdict} (tolerance {TOLERANCE:g}).",
        "",
        *lines,
    ], agree


def waits(shape: Shape, steps: int = 8, epochs: int = 3) -> list[str]:
    """List where the host waits for the device in the last epoch of a cached run."""
    depth = shape.blocks * 3 // 4
    row = Row("", f"bottom-up:{depth}", cache=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with trainer_for(row, shape, "cuda", steps, epochs, [Waits(epochs)]) as trainer:
            trainer.train()
            cache_of(trainer)
    found = collections.Counter(
        (Path(w.filename), w.lineno) for w in caught if "synchronizing CUDA operation" in str(w.message)
    )
    own = sum(count for (path, _), count in found.items() if PACKAGE in path.parents)
    lines = [
        f"Waits for the device in {steps} steps that the cache serves: {own} in adaptivefreeze, of {found.total()}."
    ]
    if found:
        lines += ["", "| place | waits |", "|---|---:|"]
        places = found.most_common(10)
        lines += [f"| `{'/'.join(path.parts[-3:])}:{line}` | {count} |" for (path, line), count in places]
    return lines


def real_data(options: argparse.Namespace) -> list[str]:
    """Fine-tune a pretrained model on real data. Needs the extra `lab`."""
    from adaptivefreeze import parse_policy
    from adaptivefreeze.comparison.records import starting_model
    from adaptivefreeze.comparison.run import run_scenario, warm_up
    from adaptivefreeze.comparison.settings import StudySettings
    from adaptivefreeze.data import load_task

    sizes = {"limit": options.limit, "eval_limit": options.eval_limit}
    task = load_task(options.dataset, model=options.model, max_length=128, **sizes)
    _, record = starting_model(task)
    settings = StudySettings(epochs=options.epochs, batch_size=32, learning_rate=2e-4, device=options.device)
    half = record.blocks // 2
    warm_up(task, settings)
    lines = [
        f"{Path(record.name).name} on {Path(options.dataset).name}, {task.train_examples} examples, "
        f"{options.epochs} epochs, batches of 32, one seed. Seconds are those of training steps.",
        "",
        "| run | train s | of full | peak memory, MiB | joules | test macro F1 | test entity F1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    full = 0.0
    scenarios = (("nothing", False), (f"bottom-up:{half}", False), (f"bottom-up:{half}", True), ("side", True))
    for policy, cache in scenarios:
        result = run_scenario(task, parse_policy(policy), 0, replace(settings, cache=cache), model=record)
        full = full or result.train_seconds
        joules, metrics = result.energy_joules, result.metrics
        entity = metrics.entity_f1
        lines.append(
            f"| `{policy}`{', cache' if cache else ''} | {result.train_seconds:.1f} "
            f"| {result.train_seconds / full:.3f} "
            f"| {result.peak_memory_bytes / 2**20:.0f} | {'–' if joules is None else f'{joules:.0f}'} "
            f"| {100 * metrics.macro_f1:.1f} | {'–' if entity is None else f'{100 * entity:.1f}'} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a small model in fp32")
    parser.add_argument("--seconds", type=float, help="for the first table; default: 420, or 60 with --small")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--model", help="a pretrained model, with --dataset")
    parser.add_argument("--dataset", help="a data set such as a folder of CoNLL columns, with --model")
    parser.add_argument("--limit", type=int, default=3000, help="training examples of --dataset")
    parser.add_argument("--eval-limit", type=int, help="validation and test examples of --dataset; default: all")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device: pass --device cpu --small to try the script")
    if (options.model is None) != (options.dataset is None):
        parser.error("--model and --dataset go together")
    if options.epochs < 2 or options.rounds < 1:
        parser.error("--epochs must be at least 2, because the first epoch fills the cache, and --rounds at least 1")
    keep_memory(True)
    shape = SMALL if options.small else BASE
    seconds = options.seconds or (60.0 if options.small else 420.0)
    compared, agree = agreement(options.device)
    parts = [[f"{describe(options.device)}."]]
    parts.append(performance(shape, options.device, seconds=seconds, rounds=options.rounds, epochs=options.epochs))
    parts.append(compared)
    if options.device == "cuda":
        parts.append(waits(shape))
    if options.dataset:
        parts.append(real_data(options))
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    print(text)
    if options.output:
        options.output.write_text(f"# On {'a GPU' if options.device == 'cuda' else 'the CPU'}\n\n{text}")
    if not agree:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
