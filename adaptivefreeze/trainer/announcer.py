"""Announcer: says what a run freezes and why, on the console, in the Trainer's log and in the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback, WandbCallback

from ..cache import PrefixCache
from ..model.cost import StepShape
from ..model.timeline import Change
from .forecast import RunForecast, forecast
from .messages import decision_message, show, start_message
from .run import FreezingRun
from .summary import RunMeter, RunSummary

_TAKE_TEXT = (TensorBoardCallback, WandbCallback)


class Announcer:
    """Announces the start of one run, each change of its timeline, and its end.

    Each change becomes an entry of `state.log_history`, with the keys `freeze/decision` and `freeze/mask`. TensorBoard
    and Weights & Biases receive it as text. The console is written to by the main process only.

    Args:
        run: The run.
        cache: Its cache, if any.
        trainer: The Trainer, if it is known.
        args: Its arguments.
        state: Its state.
        quiet: Whether nothing is written to the console.

    Attributes:
        meter: Measures the run for its summary.
        forecast: What the whole run will take, once that is known.
    """

    def __init__(
        self,
        run: FreezingRun,
        cache: PrefixCache | None,
        trainer: Trainer | None,
        args: TrainingArguments,
        state: TrainerState,
        *,
        quiet: bool,
    ) -> None:
        self._run = run
        self._cache = cache
        self._trainer = trainer
        self._show = show if state.is_world_process_zero and not quiet else lambda sentence: None
        self._accumulation = args.gradient_accumulation_steps
        self._device = args.device
        self.forecast: RunForecast | None = None
        self._latest: Change = run.timeline[-1]
        shape = StepShape(examples=args.per_device_train_batch_size * self._accumulation)
        self.meter = RunMeter(
            run.policy,
            run.stack,
            run.timeline,
            total_steps=run.plan.total_steps,
            shape=shape,
            stats=None if cache is None else cache.stats,
            step=state.global_step,
            sieve=run.sieve,
        )
        self._show(start_message(run.policy, run.stack, run.mask, shape, cache, step=state.global_step))

    def compute_loss(
        self, original: Callable[..., Any], model: nn.Module, inputs: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Wrap `Trainer.compute_loss`: see the shape of the first batch."""
        if model.training:
            self.meter.see_batch(inputs.values(), self._accumulation)
        return original(model, inputs, *args, **kwargs)

    def end_step(self, step: int, optimizer: Any) -> None:
        """Measure the end of a step, before anything else happens, and announce the forecast when it is due.

        Args:
            step: Number of optimizer steps taken.
            optimizer: The optimizer.
        """
        self.meter.end_step(step, optimizer)
        found = forecast(self._run, self.meter, self._device, step)
        if found is not None:
            self.forecast = found
            self._show(str(found))

    def announce_change(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        log_values: Callable[[], Mapping[str, float]],
    ) -> None:
        """Announce the latest change of the timeline, unless it is announced already.

        Args:
            args: The arguments of the Trainer.
            state: Its state.
            control: Its control object.
            log_values: Returns what every log line contains.
        """
        change = self._run.timeline[-1]
        if change == self._latest:
            return
        self._latest = change
        entry: dict[str, Any] = {"freeze/decision": change.reason, "freeze/mask": str(change.mask), **log_values()}
        if state.epoch is not None:
            entry["epoch"] = state.epoch
        state.log_history.append({**entry, "step": state.global_step})
        for integration in [] if self._trainer is None else self._trainer.callback_handler.callbacks:
            if isinstance(integration, _TAKE_TEXT):
                integration.on_log(args, state, control, logs=dict(entry), model=self._run.model)
        run, shape = self._run, self.meter.shape
        self._show(decision_message(change, run.stack, shape, self._cache, total_steps=run.plan.total_steps))

    def end(self) -> None:
        """Show the summary."""
        self._show(f"Summary of {self.meter.summary()}")


def add_to_model_card(
    trainer: Trainer, summary: Callable[[], RunSummary | None], original: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """Wrap `Trainer.create_model_card`: add a section about freezing to the card that it writes."""
    original(*args, **kwargs)
    found = summary()
    card = Path(str(trainer.args.output_dir)) / "README.md"
    if found is not None and trainer.is_world_process_zero() and card.is_file():
        text = card.read_text(encoding="utf-8")
        card.write_text(f"{text.rstrip()}\n\n{found.to_markdown()}", encoding="utf-8")
