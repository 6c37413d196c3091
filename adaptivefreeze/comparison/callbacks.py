"""Callbacks of one run: they look at what Trainer reports, and change nothing but when validation is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from ..meters.step_timer import StepTimer
from .result import ValidationPoint


class TrainingDiverged(RuntimeError):
    """The training loss stopped being a number."""


class LossGuard(TrainerCallback):
    """Ends the run when a logged loss is not a number, since nothing after it would be worth its time."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        check_loss((logs or {}).get("loss"), state.global_step, args.learning_rate)


def check_loss(loss: float | None, step: int, learning_rate: float) -> None:
    """Raises `TrainingDiverged` with advice unless `loss` is a finite number (or there is none)."""
    if loss is not None and not math.isfinite(loss):
        raise TrainingDiverged(
            f"the training loss was {loss} by step {step}: try a learning rate below {learning_rate:g}"
        )


class ValidationCurve(TrainerCallback):
    """Collects a `ValidationPoint` at each evaluation, and asks for one at the end of each epoch where none is due."""

    def __init__(self, clock: StepTimer) -> None:
        self.points: list[ValidationPoint] = []
        self.seconds = 0.0
        self._clock = clock

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_evaluate = not self.points or self.points[-1].step != state.global_step
        return control

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        found = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items()}
        loss = found.get("loss")
        self.seconds += found.get("runtime", 0.0)
        self.points.append(
            ValidationPoint(
                step=state.global_step,
                epoch=state.epoch,
                macro_f1=found["macro_f1"],
                seconds=self._clock.seconds,
                accuracy=found.get("accuracy"),
                weighted_f1=found.get("weighted_f1"),
                entity_f1=found.get("entity_f1"),
                loss=loss if loss is not None and math.isfinite(loss) else None,
            )
        )


class TimeLimit(TrainerCallback):
    """Ends training with the step that brings the clock to `seconds`; `reached` tells whether it came to that.

    Belongs after the clock's closing callback, which adds the step.
    """

    def __init__(self, clock: StepTimer, seconds: float) -> None:
        self.reached = False
        self._clock = clock
        self._seconds = seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._clock.seconds >= self._seconds and state.global_step < state.max_steps:
            self.reached = control.should_training_stop = True


class StepReport(TrainerCallback):
    """Tells `listener` how many steps are done, of how many."""

    def __init__(self, listener: Callable[[int, int], None]) -> None:
        self._listener = listener

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._listener(state.global_step, state.max_steps)
