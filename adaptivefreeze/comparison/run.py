"""One run: train one policy on one task from one seed with Trainer, measure it, and score it on the test split."""

from __future__ import annotations

import logging
import math
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import release_memory
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ..cache import PrefixCache
from ..meters.energy import EnergyMeter
from ..meters.environment import describe
from ..meters.memory import PeakMemory
from ..meters.step_timer import StepTimer
from ..policies import Nothing, Policy, is_full_fine_tuning
from ..trainer.callback import FreezeCallback
from .callbacks import (
    InterruptCheck,
    LossGuard,
    SignalHistory,
    StepReport,
    TimeLimit,
    TrainingDiverged,
    ValidationCurve,
    check_loss,
)
from .prediction import predicted_ratio, share_seen_again, step_shape
from .records import task_record
from .result import FailedRun, Metrics, ModelRecord, RunResult, Timing
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 3

_NO_MEMORY = re.compile("out of memory|not enough memory", re.IGNORECASE)


def run_scenario(
    task: Task,
    policy: Policy,
    seed: int,
    settings: StudySettings,
    *,
    model: ModelRecord,
    order: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    save_to: Path | None = None,
    checkpoints: Path | None = None,
    prefix_cache: PrefixCache | None = None,
    test: bool = True,
    stop_after: float = math.inf,
) -> RunResult:
    """Train a new model of the task under `policy`, and measure the run.

    Args:
        task: The task.
        policy: What is frozen when.
        seed: The seed of the head, of dropout and of the order of the data.
        settings: How the model is trained.
        model: The record of the model for the result.
        order: The position of the run among those of its process.
        on_step: Called with the number of steps done and the total number after each step.
        save_to: The folder for the trained model and the tokenizer.
        checkpoints: The folder for checkpoints, if the settings ask for any.
        prefix_cache: A cache shared with other runs, used if the settings ask for a cache.
        test: Score the model on the test split. Otherwise the result has no `metrics`.
        stop_after: Training time in seconds at which training is stopped; the result then has no `metrics`.

    Returns:
        The measurements of the run.

    Raises:
        TrainingDiverged: The loss is not finite.
        RequestError: The policy does not fit the model.
        Exception: Whatever Trainer raises.
    """
    with ExitStack() as held:
        folder = str(checkpoints) if checkpoints else held.enter_context(tempfile.TemporaryDirectory())
        arguments = settings.arguments(folder, seed)
        seconds = time.process_time if settings.clock == "processor" else None
        clock = StepTimer(arguments.device, EnergyMeter.of(arguments.device), seconds)
        curve = ValidationCurve(clock)
        freezing = FreezeCallback(policy, cache=(prefix_cache or True) if settings.cache else False, quiet=True)
        limit = TimeLimit(clock, stop_after)
        history = SignalHistory(freezing)
        callbacks = [clock.opening, freezing, LossGuard(), curve, clock.closing, limit, history, InterruptCheck()]
        if on_step is not None:
            callbacks.append(StepReport(on_step))

        with PeakMemory(arguments.device) as peak:
            trainer = build_trainer(task, seed, arguments, callbacks)
            outcome = trainer.train()
        check_loss(outcome.training_loss, outcome.global_step, arguments.learning_rate)
        began = time.perf_counter()
        metrics = evaluate_test(trainer, task) if test and not limit.reached else None
        test_seconds = time.perf_counter() - began
        if save_to is not None:
            trainer.save_model(str(save_to))
            task.tokenizer.save_pretrained(str(save_to))

    stack, mask, steps = freezing.stack, freezing.mask, outcome.global_step
    caching = freezing.cache is not None and freezing.cache.stats.disabled_reason is None
    seen_again = share_seen_again(trainer.state.epoch or 0.0) if caching else 0.0
    if stack is None or mask is None:
        raise RuntimeError("Trainer did not call on_train_begin")
    return RunResult(
        scenario=str(policy),
        seed=seed,
        cache=settings.cache,
        task=task_record(task),
        model=model,
        metrics=metrics,
        validation=tuple(curve.points),
        train_loss=outcome.training_loss,
        train_seconds=clock.seconds,
        eval_seconds=curve.seconds + test_seconds,
        steps=steps,
        samples_per_second=(trainer.state.epoch or 0.0) * task.train_examples / clock.seconds,
        trainable_parameters=stack.trainable_parameters(mask),
        frozen_fraction=stack.frozen_fraction(mask),
        predicted_step_ratio=predicted_ratio(stack, freezing.timeline, steps, step_shape(task, settings), seen_again),
        peak_memory_bytes=peak.bytes,
        energy_joules=clock.joules,
        timeline=tuple(freezing.timeline.to_json()),
        environment=describe(arguments.device, _dtype(arguments, trainer)),
        settings=settings.to_json(),
        cache_stats=None if freezing.cache is None else freezing.cache.stats.to_json(),
        full_fine_tuning=is_full_fine_tuning(policy, stack),
        signals=tuple(history.records),
        timing=Timing.of(clock.step_seconds, clock.load_average),
        order=order,
    )


def evaluate_test(trainer: Trainer, task: Task) -> Metrics:
    """Return the scores of the trainer's model on the test split."""
    trainer.compute_metrics = None  # the scores below include those by class
    test = trainer.predict(longest_first(task.test))
    return Metrics(**task.score(test.predictions, test.label_ids))


def score_saved(folder: Path, task: Task, arguments: TrainingArguments) -> Metrics:
    """Return the scores on the test split of the model that a run saved into `folder`."""
    model: Any = type(task.new_model(0)).from_pretrained(folder)
    arguments.eval_strategy = "no"
    trainer = Trainer(model=model, args=arguments, data_collator=task.collator(), processing_class=task.tokenizer)
    return evaluate_test(trainer, task)


def run_or_record_failure(
    task: Task,
    policy: Policy,
    seed: int,
    settings: StudySettings,
    *,
    model: ModelRecord,
    order: int = 0,
    **options: Any,
) -> RunResult | FailedRun:
    """Call `run_scenario`, and return a `FailedRun` with the reason if it raises anything but Ctrl-C."""
    try:
        return run_scenario(task, policy, seed, settings, model=model, order=order, **options)
    except Exception as error:  # the other runs of the study can still succeed
        sentence = failure_sentence(error)
    release_memory()  # outside the handler, where the traceback no longer references the model
    return FailedRun(
        scenario=str(policy),
        seed=seed,
        cache=settings.cache,
        task=task_record(task),
        model=model,
        error=sentence,
        environment=describe(settings.arguments("unused", seed).device, "unknown"),
        settings=settings.to_json(),
        order=order,
    )


def warm_up(task: Task, settings: StudySettings) -> None:
    """Train a throw-away model for a few steps, so that the first timed run does not include start-up costs.

    A failure is logged, not raised: a run that needs less memory than full fine-tuning may still succeed.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            arguments = settings.arguments(folder, seed=0)
            arguments.max_steps = WARM_UP_STEPS
            arguments.eval_strategy = arguments.save_strategy = "no"
            build_trainer(task, 0, arguments, [FreezeCallback(Nothing(), quiet=True)]).train()
    except (RuntimeError, MemoryError, ValueError) as error:
        logger.warning("The warm-up failed (%s): the time of the first run includes start-up costs.", error)
    release_memory()


def failure_sentence(error: BaseException) -> str:
    """Return why a run failed, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, TrainingDiverged):
        return f"Training diverged: {text}."
    # torch's CPU allocator raises a plain RuntimeError.
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY.search(text):
        return f"Out of memory: try a smaller --batch-size or --max-length ({text[:200] or type(error).__name__})."
    return f"{type(error).__name__}: {text[:500]}"


def build_trainer(task: Task, seed: int, arguments: TrainingArguments, callbacks: list[TrainerCallback]) -> Trainer:
    """Return a Trainer for a new model of the task."""
    trainer = Trainer(
        model=task.new_model(seed),
        args=arguments,
        train_dataset=task.train,
        eval_dataset=longest_first(task.validation),
        data_collator=task.collator(),
        processing_class=task.tokenizer,
        compute_metrics=task.compute_metrics,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def longest_first(split: Any) -> Any:
    """Return a split with its longest examples first, which needs little padding and leaves the scores unchanged."""
    lengths = [len(ids) for ids in split["input_ids"]]
    return split.select(sorted(range(len(lengths)), key=lambda row: -lengths[row]))


def _dtype(arguments: TrainingArguments, trainer: Trainer) -> str:
    """The data type of the matrix products."""
    if arguments.bf16:
        return "bfloat16 autocast"
    if arguments.fp16:
        return "float16 autocast"
    model: Any = trainer.model
    return str(model.dtype).removeprefix("torch.")
