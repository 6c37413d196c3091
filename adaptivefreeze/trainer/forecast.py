"""Forecast of the rest of a run, from its first steps."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from .messages import format_duration, format_size
from .run import FreezingRun
from .summary import RunMeter

FORECAST_STEPS = 20
"""Number of steps after which a run is forecast."""

SHORTEST = 4 * FORECAST_STEPS
"""Number of steps below which a run is not forecast."""


@dataclass(frozen=True)
class RunForecast:
    """What a run will take if its mask stays as it is. `str()` is text for readers.

    Attributes:
        step: Number of optimizer steps taken when the forecast was made.
        seconds: Time in all training steps of this process, in seconds.
        full_seconds: The same for full fine-tuning.
        cache_bytes: Size of the hidden states of all training examples in the cache. 0 without an active cache.
        memory_bytes: Peak memory allocated on the CUDA device, or else memory of the process, with all of these rows.
    """

    step: int
    seconds: float
    full_seconds: float
    cache_bytes: int
    memory_bytes: int

    def __str__(self) -> str:
        text = (
            f"Forecast after {self.step:,} steps: {format_duration(self.seconds)} in training steps with this mask, "
            f"about {format_duration(self.full_seconds)} in full fine-tuning. Memory: {format_size(self.memory_bytes)}"
        )
        return text + (f", {format_size(self.cache_bytes)} of it for cached rows." if self.cache_bytes else ".")


def forecast(run: FreezingRun, meter: RunMeter, device: torch.device, step: int) -> RunForecast | None:
    """Return the forecast of a run.

    The mean time of the steps so far gives the time of a full step, by the cost model. The cost model then gives the
    time of the remaining steps: those of the first pass over the data, which fill the cache, and those after it.

    Args:
        run: The run.
        meter: Its measurements.
        device: The device that it trains on.
        step: Number of optimizer steps taken.

    Returns:
        The forecast, or None before the end of step `FORECAST_STEPS` of this process, and for a run that is too short.
    """
    if len(meter.full_step_seconds) != FORECAST_STEPS or run.plan.total_steps < SHORTEST:
        return None
    usual = sorted(meter.full_step_seconds)[: -FORECAST_STEPS // 10]  # the first steps of a process can be slow
    full = sum(usual) / len(usual)
    began, total, epoch = step - FORECAST_STEPS, run.plan.total_steps, round(run.plan.steps_per_epoch)
    filled = min(total, max(step, began + epoch)) if run.cached else total
    seconds = meter.seconds + full * (
        (filled - step) * meter.step_ratio() + (total - filled) * meter.step_ratio(cached=True)
    )
    stored = run.row_bytes
    rows = round(stored * max(1.0, epoch / FORECAST_STEPS)) if run.cached else 0
    return RunForecast(step, seconds, full * (total - began), rows, _memory(device) + max(0, rows - stored))


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
