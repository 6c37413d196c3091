"""StepClock: seconds and joules of training steps alone, taken by two callbacks around all others."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import TrainerCallback

from .energy import EnergyMeter


class StepClock:
    """Adds up the time from the beginning of each optimizer step to its end.

    Put `opening` before all other callbacks and `closing` after them: whatever they do at a step's bounds is then
    inside the clock; loading data, evaluating, logging and saving are outside. On CUDA the device is waited for at
    both bounds, so that a step's own work is counted in that step.
    """

    def __init__(self, device: torch.device, meter: EnergyMeter | None = None) -> None:
        self.seconds = 0.0
        self.steps = 0
        self.opening: TrainerCallback = _Opening(self)
        self.closing: TrainerCallback = _Closing(self)
        self._device = device
        self._meter = meter
        self._began: float | None = None

    @property
    def joules(self) -> float | None:
        """Energy of the steps so far, or None where nothing measures it."""
        return None if self._meter is None else self._meter.joules

    def start(self) -> None:
        """A step begins."""
        self._wait()
        if self._meter is not None:
            self._meter.start()
        self._began = time.perf_counter()

    def stop(self) -> None:
        """The step has ended. Raises `RuntimeError` when none had begun."""
        if self._began is None:
            raise RuntimeError("the clock was stopped without having been started")
        self._wait()
        self.seconds += time.perf_counter() - self._began
        self.steps += 1
        self._began = None
        if self._meter is not None:
            self._meter.stop()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class _Opening(TrainerCallback):
    def __init__(self, clock: StepClock) -> None:
        self._clock = clock

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.start()


class _Closing(TrainerCallback):
    def __init__(self, clock: StepClock) -> None:
        self._clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.stop()
