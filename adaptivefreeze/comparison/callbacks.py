"""Trainer callbacks of one run: loss check, validation curve, time limit and progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from ..meters.step_timer import StepTimer
from ..policies import Signals
from ..policies.decision import Norms
from ..trainer.callback import FreezeCallback
from .interrupt import check_interrupt
from .result import SignalRecord, ValidationPoint

UNIT_SIGNALS = ("gradient_changes", "weight_changes", "gradients", "importance", "weights")
"""The signals with one number per unit, those that policies compare directly first."""


class TrainingDiverged(RuntimeError):
    """Raised when the training loss is not finite."""


class LossGuard(TrainerCallback):
    """Ends the run when a logged loss is not finite."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        check_loss((logs or {}).get("loss"), state.global_step, args.learning_rate)


def check_loss(loss: float | None, step: int, learning_rate: float) -> None:
    """Raise `TrainingDiverged` if `loss` is not finite."""
    if loss is not None and not math.isfinite(loss):
        raise TrainingDiverged(
            f"the training loss was {loss} by step {step}: try a learning rate below {learning_rate:g}"
        )


class ValidationCurve(TrainerCallback):
    """Records a `ValidationPoint` at each evaluation, and requests an evaluation at the end of each epoch."""

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


class SignalHistory(TrainerCallback):
    """Records what the policy of `freezing` measured at each decision point, as far as it is one number per unit.

    Must come after `freezing` in the list of callbacks.
    """

    def __init__(self, freezing: FreezeCallback) -> None:
        self.records: list[SignalRecord] = []
        self._freezing = freezing
        self._last: Signals | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signals = self._freezing.signals
        if signals is None or signals is self._last:
            return
        self._last = signals
        for name in UNIT_SIGNALS:
            values = {unit: _number(value) for unit, value in (getattr(signals, name) or {}).items()}
            values = {unit: value for unit, value in values.items() if math.isfinite(value)}
            if values:
                self.records.append(SignalRecord(signals.step, name.replace("_", " "), values))

    on_evaluate = on_step_end


def _number(value: float | Norms) -> float:
    return value.l2 if isinstance(value, Norms) else float(value)


class TimeLimit(TrainerCallback):
    """Ends training after the step at which the training time reaches a limit; `reached` says whether it did.

    Must come after the closing callback of `clock`, which adds the time of the step.
    """

    def __init__(self, clock: StepTimer, seconds: float) -> None:
        self.reached = False
        self._clock = clock
        self._seconds = seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._clock.seconds >= self._seconds and state.global_step < state.max_steps:
            self.reached = control.should_training_stop = True


class InterruptCheck(TrainerCallback):
    """Ends the run on a Ctrl-C that was discarded elsewhere."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_interrupt()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_interrupt()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_interrupt()


class StepReport(TrainerCallback):
    """Calls `on_step(steps done, total steps)` after each step."""

    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps)
