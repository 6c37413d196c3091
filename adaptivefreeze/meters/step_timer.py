"""Time and energy of training steps."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from .energy import EnergyMeter


class StepTimer:
    """Accumulates the time and energy between the start and the end of each optimizer step.

    Register `opening` before all other callbacks of the Trainer and `closing` after them. The work that callbacks do at
    the start and end of a step then counts; data loading, evaluation, logging and saving do not. On CUDA the timer
    synchronizes the device at both ends, so that each step includes the kernels it launched.

    Args:
        device: The device that the model trains on.
        meter: Measures the energy of the steps; None for no energy.
        clock: Returns the time in seconds; the clock of the system by default.

    Attributes:
        seconds: Total time of all steps, in seconds.
        step_seconds: The time of each step, in seconds.
        opening: Callback that starts the timer.
        closing: Callback that stops the timer.
    """

    def __init__(
        self,
        device: torch.device,
        meter: EnergyMeter | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.seconds = 0.0
        self.step_seconds = array("d")
        self.opening: TrainerCallback = _Opening(self)
        self.closing: TrainerCallback = _Closing(self)
        self._device = device
        self._meter = meter
        self._clock = clock or time.perf_counter
        self._started: float | None = None
        self._loads = 0.0

    @property
    def load_average(self) -> float:
        """Mean over the steps of the machine's load average of one minute."""
        return self._loads / max(1, len(self.step_seconds))

    @property
    def joules(self) -> float | None:
        """Total energy of all steps in joules, or None without an energy meter."""
        return None if self._meter is None else self._meter.joules

    def start(self) -> None:
        """Start a step."""
        self._synchronize()
        if self._meter is not None:
            self._meter.start()
        self._started = self._clock()

    def stop(self) -> None:
        """End the step.

        Raises:
            RuntimeError: If no step was started.
        """
        if self._started is None:
            raise RuntimeError("the step timer was stopped without having been started")
        self._synchronize()
        taken = self._clock() - self._started
        self.seconds += taken
        self.step_seconds.append(taken)
        self._loads += psutil.getloadavg()[0]
        self._started = None
        if self._meter is not None:
            self._meter.stop()

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class _Opening(TrainerCallback):
    def __init__(self, timer: StepTimer) -> None:
        self._timer = timer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._timer.start()


class _Closing(TrainerCallback):
    def __init__(self, timer: StepTimer) -> None:
        self._timer = timer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._timer.stop()
