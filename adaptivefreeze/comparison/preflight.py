"""`preflight`: what whole runs would cost on this machine, measured on a few real steps of each."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate.utils import release_memory
from transformers import TrainerCallback, TrainingArguments

from ..cache.stats import CacheStats
from ..cache.store import CHUNK_BYTES, INDEX_BYTES
from ..errors import RequestError
from ..extras import missing_extra
from ..meters.energy import EnergyMeter
from ..meters.memory import PeakMemory
from ..meters.step_timer import StepTimer
from ..model.lora import lora_above
from ..policies import Nothing, parse_policy
from ..side.attach import tap_boundaries
from ..trainer.callback import FreezeCallback
from .prediction import batch_order
from .run import build_trainer, failure_sentence, longest_first, warm_up
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task

LORA = "lora"
SCENARIOS = ("nothing", LORA, "bottom-up:0.5", "side")
BATCHES = 4
"""Number of batches that are timed, in two passes each."""


@dataclass(frozen=True)
class Forecast:
    """What a run would cost. Steps alone are counted in time and energy, as in `RunResult.train_seconds`.

    Attributes:
        scenario: `lora` (rank 8 on every linear layer of the blocks), or a policy as text.
        seconds: Time of all steps, filling the cache included.
        filling_seconds: The part of `seconds` in the first pass over the data.
        peak_memory_bytes: Peak memory of the run with its evaluations, rows of the cache included.
        cache_bytes: Size of the cache at the end.
        joules: Energy of all steps. None if the machine has no counter.
        failure: Why there is no forecast; the numbers are 0 then.
    """

    scenario: str
    seconds: float = 0.0
    filling_seconds: float = 0.0
    peak_memory_bytes: int = 0
    cache_bytes: int = 0
    joules: float | None = None
    failure: str | None = None


def preflight(
    task: Task,
    settings: StudySettings,
    scenarios: Sequence[str] = SCENARIOS,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Forecast, ...]:
    """Predict time, memory and energy of whole runs from a few real steps of each.

    Each run trains a new model on the batch with the longest example, which decides the peak of the memory and is not
    timed, and on batches of evenly spread lengths. With the cache, the first pass fills it and the second one uses it.

    Args:
        task: The task.
        settings: How the runs are trained. Policies run with the cache in any case.
        scenarios: `lora` and specs of static policies.
        clock: Measures the steps. `time.process_time` predicts processor seconds.

    Returns:
        A forecast for each scenario. A scenario that is not possible, or runs out of memory, has its `failure`.
    """
    warm_up(task, settings)
    sample = _Sample.of(task, settings)
    forecasts = []
    for scenario in scenarios:
        try:
            forecasts.append(_forecast(scenario, task, settings, sample, clock))
        except Exception as error:  # the other scenarios may fit
            sentence = str(error) if isinstance(error, RequestError) else failure_sentence(error)
            forecasts.append(Forecast(scenario, failure=sentence))
        release_memory()
    return tuple(forecasts)


@dataclass(frozen=True)
class _Sample:
    """The examples of a pilot run: those of the longest step, then those of the steps that are timed."""

    train: Any
    validation: Any
    steps: int  # of one pass over the sample
    steps_per_epoch: int

    @classmethod
    def of(cls, task: Task, settings: StudySettings) -> _Sample:
        arguments = settings.arguments("unused", seed=0)
        size = arguments.train_batch_size
        of_step = size * arguments.gradient_accumulation_steps
        lengths = [len(ids) for ids in task.train["input_ids"]]
        order = batch_order(lengths, settings)

        def tokens(step: list[int]) -> int:
            return sum(size * max(lengths[i] for i in step[at : at + size]) for at in range(0, len(step), size))

        steps = [order[at : at + of_step] for at in range(0, len(order), of_step)]
        whole = sorted((s for s in steps if len(s) == of_step), key=tokens) or steps
        *others, longest = whole
        count = min(BATCHES, len(others))
        chosen = [longest, *(others[int((i + 0.5) * len(others) / count)] for i in range(count))]
        evaluated = longest_first(task.validation)
        return cls(
            task.train.select([row for step in chosen for row in step]),
            evaluated.select(range(min(arguments.eval_batch_size, len(evaluated)))),
            len(chosen),
            len(steps),
        )


@dataclass(frozen=True)
class Measured:
    """What a run has cost.

    Attributes:
        step_seconds: The time of each step.
        joules: Energy of all steps, or None.
        peak_memory_bytes: Peak memory of the run with its evaluations.
        cache: Statistics of the cache, or None without one.
        row_bytes: Bytes of the hidden states that the cache stores for one token.
    """

    step_seconds: list[float]
    joules: float | None
    peak_memory_bytes: int
    cache: CacheStats | None
    row_bytes: int


def train_measured(
    scenario: str,
    task: Task,
    arguments: TrainingArguments,
    *,
    clock: Callable[[], float] = time.perf_counter,
    callbacks: Sequence[TrainerCallback] = (),
) -> Measured:
    """Train a new model under a scenario of `preflight`, and measure the run.

    Args:
        scenario: `lora` or the spec of a policy, which runs with the cache.
        task: The task.
        arguments: The arguments of the Trainer.
        clock: Measures the steps.
        callbacks: Further callbacks.
    """
    policy = Nothing() if scenario == LORA else parse_policy(scenario)
    freezing = FreezeCallback(policy, cache=scenario not in (LORA, str(Nothing())), quiet=True)
    timer = StepTimer(arguments.device, EnergyMeter.of(arguments.device), clock)
    with PeakMemory(arguments.device) as peak:
        trainer = build_trainer(
            _with_lora(task) if scenario == LORA else task,
            0,
            arguments,
            [timer.opening, freezing, timer.closing, *callbacks],
        )
        trainer.train()
    model: Any = trainer.model
    assert freezing.stack is not None
    boundaries = len(tap_boundaries(model)) or 1
    return Measured(
        list(timer.step_seconds),
        timer.joules,
        peak.bytes,
        None if freezing.cache is None else freezing.cache.stats,
        boundaries * freezing.stack.hidden_size * int(model.dtype.itemsize),
    )


def _forecast(
    scenario: str, task: Task, settings: StudySettings, sample: _Sample, clock: Callable[[], float]
) -> Forecast:
    pilot = dataclasses.replace(task, train=sample.train, validation=sample.validation)
    total = _total_steps(settings, sample.steps_per_epoch)
    fields = {**settings.training_arguments, "train_sampling_strategy": "sequential", "max_steps": -1}
    # The pilot has the number of passes of the whole run, on which the cache decides whether it pays, and is stopped.
    epochs = total / sample.steps_per_epoch
    chosen = dataclasses.replace(settings, epochs=epochs, eval_steps=sample.steps, training_arguments=fields)
    with tempfile.TemporaryDirectory() as folder:
        arguments = chosen.arguments(folder, seed=0)
        arguments.save_strategy = "no"
        stop = _StopAfter(2 * sample.steps)
        measured = train_measured(scenario, pilot, arguments, clock=clock, callbacks=[stop])
    taken = measured.step_seconds
    first = taken[1 : sample.steps] or taken
    later = taken[sample.steps + 1 :] or first
    cached = measured.cache is not None and measured.cache.disabled_reason is None
    if not cached:
        first = later = first + later
    filling = min(total, sample.steps_per_epoch)
    filling_seconds = filling * sum(first) / len(first)
    seconds = filling_seconds + (total - filling) * sum(later) / len(later)
    rows = pilot_rows = examples = 0
    if cached:
        rows, pilot_rows = (measured.row_bytes * (_tokens(t.train) + _tokens(t.validation)) for t in (task, pilot))
        examples = len(task.train) + len(task.validation)
    return Forecast(
        scenario,
        seconds=seconds,
        filling_seconds=filling_seconds if cached else 0.0,
        peak_memory_bytes=measured.peak_memory_bytes + rows - pilot_rows,
        cache_bytes=math.ceil(rows / CHUNK_BYTES) * CHUNK_BYTES + INDEX_BYTES * examples,
        joules=None if measured.joules is None else measured.joules / sum(taken) * seconds,
    )


class _StopAfter(TrainerCallback):
    """Ends training after a number of steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= state.global_step >= self._steps


def _total_steps(settings: StudySettings, steps_per_epoch: int) -> int:
    limit = int(settings.training_arguments.get("max_steps", 0))
    return limit if limit > 0 else math.ceil(settings.epochs * steps_per_epoch)


def _tokens(split: Any) -> int:
    return sum(len(ids) for ids in split["input_ids"])


def _with_lora(task: Task) -> Task:
    """Return a copy of a task whose models have LoRA adapters in all blocks and a trainable head."""
    sentence = missing_extra("peft", LORA)
    if sentence:
        raise RequestError(sentence)
    from peft import TaskType, get_peft_model

    from ..data import Task

    task_type = TaskType.TOKEN_CLS if task.kind == "ner" else TaskType.SEQ_CLS

    class LoraTask(Task):
        def new_model(self, seed: int) -> Any:
            model = super().new_model(seed)
            return get_peft_model(model, lora_above(model, 0, r=8, lora_alpha=16, task_type=task_type))

    return LoraTask(**{f.name: getattr(task, f.name) for f in dataclasses.fields(task)})
