"""RunSummary: what was frozen when in a run, and what it saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from ..cache.stats import CacheStats
from ..model.blocks import BlockStack
from ..model.cost import StepShape, step_ratio
from ..model.mask import FreezeMask
from ..model.timeline import Timeline
from ..policies import Policy
from .data_sieve import DataSieve
from .messages import format_duration, format_size


@dataclass(frozen=True)
class RunSummary:
    """What was frozen when in a run, what that saved, and what may be worth trying next. `str()` is text for readers.

    The savings are estimates against full fine-tuning for the same number of steps. The saved time is what the cost
    model predicts for the masks that were in force, and what the cache measured. The saved memory is that of gradients
    and optimizer state. Activations are not included.

    Attributes:
        policy: The policy as text.
        timeline: All changes of the mask.
        steps: Number of optimizer steps taken.
        total_steps: Number of optimizer steps of the whole run.
        frozen_fraction: Share of all parameters that do not train at the end, from 0 to 1.
        train_seconds: Time in training steps of this process, in seconds.
        seconds_saved: Estimate of the time saved, in seconds. None if no step was timed.
        bytes_saved: Estimate of the memory saved at the end, in bytes.
        peak_bytes_saved: The same while the least was frozen, which is what the peak of the run depends on.
        cache: Statistics of the cache, if there was one.
        examples_skipped: Number of training examples left out of the epochs, all epochs together. None without a sieve.
        hints: What may be worth trying, one sentence each.
    """

    policy: str
    timeline: Timeline
    steps: int
    total_steps: int
    frozen_fraction: float
    train_seconds: float
    seconds_saved: float | None
    bytes_saved: int
    peak_bytes_saved: int
    cache: CacheStats | None = None
    examples_skipped: int | None = None
    hints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(
            (
                f"{self.policy}, {self.steps:,} of {self.total_steps:,} steps",
                *(f"  {line}" for line in repr(self.timeline).splitlines()),
                f"  {self._time()}",
                f"  {self._memory()}",
                *([] if self.cache is None else [f"  {_cache_line(self.cache)}"]),
                *([] if self.examples_skipped is None else [f"  {self._data()}"]),
                *(f"  Hint: {hint}" for hint in self.hints),
            )
        )

    def to_markdown(self) -> str:
        """Return the summary as a section of a model card."""
        rows = [f"| {c.step:,} | `{_cell(str(c.mask))}` | {_cell(c.reason)} |" for c in self.timeline]
        lines = [
            f"Fine-tuned with [adaptivefreeze](https://github.com/adaptivefreeze/adaptivefreeze) under the policy "
            f"`{self.policy}`: {self.frozen_fraction:.0%} of the parameters were frozen at the end.",
            "",
            "| from step | frozen \\| trainable | reason |",
            "|---:|---|---|",
            *rows,
            "",
            f"- {self._time()}",
            f"- {self._memory()}",
            *([] if self.cache is None else [f"- {_cache_line(self.cache)}"]),
            *([] if self.examples_skipped is None else [f"- {self._data()}"]),
        ]
        return "\n".join(("## Frozen blocks", "", *lines, ""))

    def _time(self) -> str:
        if self.seconds_saved is None:
            return "Time: no step was timed."
        saved, word = abs(self.seconds_saved), "less" if self.seconds_saved >= 0 else "more"
        share = saved / (self.train_seconds + self.seconds_saved)
        return (
            f"Time: {format_duration(self.train_seconds)} in training steps, about {format_duration(saved)} {word} "
            f"than full fine-tuning ({share:.0%}, an estimate)."
        )

    def _data(self) -> str:
        return (
            f"Data: {self.examples_skipped:,} examples left out, all epochs together. The time of their steps is no "
            "part of the time saved."
        )

    def _memory(self) -> str:
        text = f"Memory: about {format_size(self.bytes_saved)} less for gradients and optimizer state at the end"
        if not self.peak_bytes_saved < self.bytes_saved:
            return f"{text} (an estimate)."
        least = f"{format_size(self.peak_bytes_saved)} less" if self.peak_bytes_saved else "nothing"
        return f"{text}, but {least} while the least was frozen (an estimate)."


class RunMeter:
    """Measures a training run for its summary.

    Args:
        policy: The policy.
        stack: The units of the model.
        timeline: The timeline of the run, which grows during training.
        total_steps: Number of optimizer steps planned.
        shape: The assumed shape of a step, until a batch is seen.
        stats: Statistics of the cache, if there is one.
        step: Number of optimizer steps taken before.
        sieve: Leaves out training examples, if the policy has a sieve.

    Attributes:
        shape: The shape of a step.
        seconds: Time in training steps, in seconds.
        full_step_seconds: Estimate of what each step would have taken in full fine-tuning, in seconds.
    """

    def __init__(
        self,
        policy: Policy,
        stack: BlockStack,
        timeline: Timeline,
        *,
        total_steps: int,
        shape: StepShape,
        stats: CacheStats | None = None,
        step: int = 0,
        sieve: DataSieve | None = None,
    ) -> None:
        self._sieve = sieve
        self.shape = shape
        self._policy = policy
        self._stack = stack
        self._timeline = timeline
        self._total_steps = total_steps
        self._stats = stats
        self._first = self._step = step
        self._batch_seen = False
        self.seconds = self._cache_gain = 0.0
        self.full_step_seconds: list[float] = []
        self._began: tuple[float, float] | None = None
        self._bytes_per_value = 0.0

    def see_batch(self, inputs: Iterable[Any], accumulation: int) -> None:
        """Take the shape of a step from the first batch: its first input of shape (batch, tokens) with integers."""
        if self._batch_seen:
            return
        self._batch_seen = True
        tensors = (value for value in inputs if isinstance(value, torch.Tensor))
        found = next((t.shape for t in tensors if t.dim() == 2 and not t.is_floating_point()), None)
        if found is not None:
            self.shape = dataclasses.replace(self.shape, examples=found[0] * accumulation, tokens=found[1])

    def begin_step(self) -> None:
        """Call at the start of each step."""
        self._began = (time.perf_counter(), self._gain())

    def end_step(self, step: int, optimizer: Any = None) -> None:
        """Call at the end of each step, before anything else happens.

        Args:
            step: Number of optimizer steps taken.
            optimizer: The optimizer.
        """
        self._step = step
        if self._began is not None:
            began, gain = self._began
            taken, gained = time.perf_counter() - began, self._gain() - gain
            self.seconds += taken
            self._cache_gain += gained
            self.full_step_seconds.append((taken + gained) / self.step_ratio())
            self._began = None
        if not self._bytes_per_value and optimizer is not None:
            self._bytes_per_value = _bytes_per_value(optimizer)

    def step_ratio(self, *, cached: bool = False) -> float:
        """Return the predicted time of a step under the mask in force, relative to full fine-tuning.

        Args:
            cached: Whether the cache skips the frozen prefix.
        """
        return step_ratio(self._stack, self._mask, self.shape, cached=cached)

    def summary(self) -> RunSummary:
        """Return the summary of the steps so far."""
        spans = self._spans()
        steps = sum(held for _, held in spans)
        saved = None
        if steps and self.seconds:
            ratio = sum(step_ratio(self._stack, mask, self.shape) * held for mask, held in spans) / steps
            saved = (self.seconds + self._cache_gain) / ratio - self.seconds
        frozen = [self._frozen_values(mask) for mask, held in spans if held] or [self._frozen_values(self._mask)]
        return RunSummary(
            policy=str(self._policy),
            timeline=Timeline(list(self._timeline)),
            steps=self._step,
            total_steps=self._total_steps,
            frozen_fraction=self._stack.frozen_fraction(self._mask),
            train_seconds=self.seconds,
            seconds_saved=saved,
            bytes_saved=round(frozen[-1] * self._bytes_per_value),
            peak_bytes_saved=round(min(frozen) * self._bytes_per_value),
            cache=None if self._stats is None else dataclasses.replace(self._stats),
            examples_skipped=None if self._sieve is None else self._sieve.skipped,
            hints=self._hints(spans),
        )

    @property
    def _mask(self) -> FreezeMask:
        return self._timeline[-1].mask

    def _gain(self) -> float:
        """Seconds that the cache has saved so far, without those that it took."""
        return 0.0 if self._stats is None else self._stats.seconds_saved - self._stats.seconds_spent

    def _spans(self) -> list[tuple[FreezeMask, int]]:
        """Each mask with the number of steps of this process in which it was in force."""
        changes = list(self._timeline)
        ends = [change.step for change in changes[1:]] + [max(self._step, changes[-1].step)]
        return [
            (change.mask, max(0, end - max(change.step, self._first)))
            for change, end in zip(changes, ends, strict=True)
        ]

    def _frozen_values(self, mask: FreezeMask) -> int:
        everything = FreezeMask(self._stack.depth)
        return self._stack.optimized_parameters(everything) - self._stack.optimized_parameters(mask)

    def _hints(self, spans: list[tuple[FreezeMask, int]]) -> tuple[str, ...]:
        stack = self._stack
        found = []
        masks = [mask for mask, held in spans if held] or [self._mask]
        mask = masks[-1]  # a change after the last step was never in force
        if not self._policy.is_static and mask.leading_blocks and masks[0] != mask:
            if all(after.covers(before) for before, after in pairwise(masks)):
                found.append(
                    f"the mask only ever grew, up to bottom-up:{mask.leading_blocks}. Freezing that from the first "
                    "step is likely faster; compare the quality."
                )
            elif max(held.leading_blocks for held in masks) > max(mask.leading_blocks, masks[0].leading_blocks):
                found.append(
                    f"the mask went deeper and came back to bottom-up:{mask.leading_blocks}. That depth is the one to "
                    "compare with fixed depths around it."
                )
        if self._stats is None and stack.prefix(mask) >= 2:
            ratio, cached = (step_ratio(stack, mask, self.shape, cached=on) for on in (False, True))
            found.append(f"cache=True is predicted to shorten a step from {ratio:.2f} to {cached:.2f} of a full one.")
        if self._policy.is_static and mask.blocks and not mask.embeddings:
            other = FreezeMask.first(stack.depth, len(mask.blocks))
            found.append(
                f"bottom-up:{len(mask.blocks)} freezes as many blocks at a predicted "
                f"{step_ratio(stack, other, self.shape):.2f} of a full step instead of "
                f"{step_ratio(stack, mask, self.shape):.2f}."
            )
        if self._policy.is_static and self._policy.side is None and 2 * mask.leading_blocks > stack.depth:
            found.append(
                "more than half of the blocks are frozen. A smaller depth is likely to score better: "
                "search_depth or `adaptivefreeze search` measures which."
            )
        return tuple(found)


def _bytes_per_value(optimizer: Any) -> float:
    """Bytes of gradient and optimizer state for each trained value. 0 before the first step of the optimizer."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    values = gradients = state = 0
    for parameter, entries in optimizer.state.items():
        if not isinstance(parameter, torch.Tensor):
            continue
        values += parameter.numel()
        gradients += parameter.numel() * parameter.element_size()
        state += sum(v.numel() * v.element_size() for v in entries.values() if isinstance(v, torch.Tensor))
    if not values:
        return 0.0
    return (gradients + state) / values


def _cache_line(stats: CacheStats) -> str:
    lookups = stats.hits + stats.misses
    if not lookups:
        return f"Cache: not used ({stats.disabled_reason or 'no frozen prefix'})."
    size = format_size(stats.memory_bytes)
    if stats.disk_bytes:
        size += f" and {format_size(stats.disk_bytes)} on disk"
    text = (
        f"Cache: {stats.hit_rate:.0%} of {lookups:,} lookups hit; {size}; {format_duration(stats.seconds_saved)} of "
        f"forward passes saved, {format_duration(stats.seconds_spent)} spent."
    )
    return text if stats.disabled_reason is None else f"{text} Disabled at the end: {stats.disabled_reason}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
