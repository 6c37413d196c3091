"""Step time with a filled prefix cache, relative to a full step, on a 12×768 BERT with random weights.

    python benchmarks/step.py [--device cpu|cuda] [--rounds 3] [--seconds 240] [--batch 8 --tokens 64] [--dtype fp32]
                              [--output FILE]

Nothing is downloaded. A round runs one step of each row in one process; a figure is the median over rounds of (row /
full step of the same round). Each shape gets an equal share of the time left of --seconds. After the first round, a
shape starts only rounds that are expected to end within its share. The process keeps freed memory (see
`machine.keep_memory`), so that page faults in the full step do not favour the cache. `ideal` is (12 − k) / 12: no
work below the boundary and none for the cache. On a CUDA device the losses of a short cached training are compared
with those on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from machine import describe, keep_memory
from transformers import BertConfig, BertForTokenClassification

from adaptivefreeze import BottomUp, PrefixCache, freeze
from adaptivefreeze.cache import CacheSession

DEPTHS = (3, 6, 9)
BLOCKS = 12
SLOW = 4.0


class Bench:
    """One model, one optimizer, one batch of full width on `device`."""

    def __init__(self, device: str, dtype: str, batch: int, tokens: int) -> None:
        torch.manual_seed(0)
        self.device, self.dtype = device, dtype
        self.model = BertForTokenClassification(BertConfig(num_labels=9, num_hidden_layers=BLOCKS)).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        ids = torch.randint(1000, 30000, (batch, tokens))
        types, labels = torch.zeros_like(ids), ids % 9
        self.batch = {
            name: value.to(device)
            for name, value in {
                "input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types, "labels": labels,
            }.items()
        }  # fmt: skip

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def step(self) -> tuple[float, float]:
        """Run one training step and return its seconds and loss."""
        self.synchronize()
        begin = time.perf_counter()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bf16"):
            loss = self.model(**self.batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.synchronize()
        return time.perf_counter() - begin, loss.item()

    def warm_check(self, cache: PrefixCache) -> None:
        """Run the cache's one-time check of the model on a separate batch, before anything is timed."""
        other = {**self.batch, "input_ids": self.batch["input_ids"].flip(1)}
        with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bf16"):
            self.model(**other)
        assert cache.stats.disabled_reason is None, cache.stats.disabled_reason

    @contextlib.contextmanager
    def frozen(self, k: int, cached: bool) -> Iterator[PrefixCache | None]:
        with freeze(self.model, BottomUp(k), optimizer=self.optimizer, eval_frozen=cached) as run:
            cache = PrefixCache(memory="1GiB") if cached else None
            if cache is not None:
                session = CacheSession(cache, self.model, run.stack)
                session.move(run.mask)
            try:
                yield cache
            finally:
                if cache is not None:
                    session.detach()
                    if cache.stats.disabled_reason:
                        raise SystemExit(f"Prefix cache disabled: {cache.stats.disabled_reason}")


def slowdown(device: str, dtype: torch.dtype) -> float:
    """Return the time of a feed-forward matrix product in `dtype` over fp32: large without hardware support."""

    def seconds(kind: torch.dtype) -> float:
        left, right = torch.ones(64, 768, dtype=kind, device=device), torch.ones(768, 3072, dtype=kind, device=device)
        found = []
        for _ in range(3):
            begin = time.perf_counter()
            (left @ right).sum().item()
            found.append(time.perf_counter() - begin)
        return min(found)

    return seconds(dtype) / seconds(torch.float32)


def measure(bench: Bench, rounds: int, seconds: float) -> list[str]:
    """Return the table rows for one dtype and shape, from 1 to `rounds` rounds as they fit in `seconds`."""
    begin = time.perf_counter()
    full: list[float] = []
    frozen: dict[int, list[float]] = {k: [] for k in DEPTHS}
    cached: dict[int, list[float]] = {k: [] for k in DEPTHS}
    looking: dict[int, list[float]] = {k: [] for k in DEPTHS}
    filling: dict[int, list[float]] = {k: [] for k in DEPTHS}
    bench.step()
    for done in range(rounds):
        if done and (time.perf_counter() - begin) * (done + 1) / done > seconds:
            break
        full.append(bench.step()[0])
        for k in DEPTHS:
            with bench.frozen(k, cached=False):
                bench.step()
                frozen[k].append(bench.step()[0])
            with bench.frozen(k, cached=True) as cache:
                assert cache is not None
                bench.warm_check(cache)
                filling[k].append(bench.step()[0])
                spent = cache.stats.seconds_spent
                bench.step()
                step = bench.step()[0]
                cached[k].append(step)
                looking[k].append((cache.stats.seconds_spent - spent) / 2 / step)
    lines = []
    shape = " × ".join(map(str, bench.batch["input_ids"].shape))
    for k in DEPTHS:
        ratio = statistics.median(c / f for c, f in zip(cached[k], full, strict=True))
        plain = statistics.median(c / f for c, f in zip(frozen[k], full, strict=True))
        fill = statistics.median(c / f for c, f in zip(filling[k], frozen[k], strict=True))
        ideal = (BLOCKS - k) / BLOCKS
        lines.append(
            f"| {bench.dtype} | {shape} | {len(full)} | {k} | {plain:.3f} "
            f"| {ratio:.3f} | {ideal:.3f} | {ratio / ideal:.2f} | {fill:.3f} | {statistics.median(looking[k]):.2%} |"
        )
    return lines


def losses(device: str, steps: int = 6) -> list[float]:
    """Return the losses of a short cached fp32 training of a small model, without dropout so that devices compare."""
    torch.manual_seed(0)
    model = BertForTokenClassification(BertConfig(
        num_labels=9, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )).to(device).train()  # fmt: skip
    ids = torch.randint(1000, 30000, (8, 32)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    cache, found = PrefixCache(memory="100MB"), []
    with freeze(model, BottomUp(2), optimizer=optimizer) as run:
        session = CacheSession(cache, model, run.stack)
        session.move(run.mask)
        for _ in range(steps):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids % 9).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        session.detach()
    assert cache.stats.hits == 8 * (steps - 1), cache.stats
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=240.0, help="time for the whole table")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--dtype", nargs="+", choices=("fp32", "bf16"), help="default: both; only fp32 if bf16 is slow")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    keep_memory(True)
    dtypes = options.dtype or ["fp32", "bf16"]
    left_out = []
    if options.dtype is None and (behind := slowdown(options.device, torch.bfloat16)) > SLOW:
        dtypes = ["fp32"]
        left_out = ["", f"bf16 omitted: a matrix product takes {behind:.0f} times as long in it as in fp32."]
    shapes = [(dtype, *shape) for dtype in dtypes for shape in zip(options.batch, options.tokens, strict=True)]
    end = time.perf_counter() + options.seconds
    lines = [
        f"BERT 12×768, AdamW, gradient clipping; the process kept freed memory. {describe(options.device)}.",
        "",
        "| dtype | batch | rounds | k | frozen / full | cached / full | ideal | cached / ideal | filling / frozen "
        "| look-up |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for place, (dtype, batch, tokens) in enumerate(shapes):
        seconds = (end - time.perf_counter()) / (len(shapes) - place)
        rows = measure(Bench(options.device, dtype, batch, tokens), options.rounds, seconds)
        lines += rows
        print("\n".join(rows), flush=True)
    lines += left_out
    if options.device == "cuda":
        pairs = zip(losses("cpu"), losses("cuda"), strict=True)
        worst = max(abs(a - b) / abs(a) for a, b in pairs)
        lines += ["", f"Losses of a cached training, CUDA against CPU, fp32: largest relative difference {worst:.1e}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Step time with the prefix cache\n\n" + text)


if __name__ == "__main__":
    main()
