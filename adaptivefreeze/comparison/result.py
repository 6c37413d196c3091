"""`RunResult` and `FailedRun`: the measurements of one run, stored atomically in one JSON file."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ..cache.stats import CacheStats
from ..errors import RequestError
from ..model.mask import FreezeMask

SCHEMA = 1

# The bounds are those within which a report can be computed and drawn.
Count = Annotated[int, Field(ge=0, lt=2**63)]
AtLeastOne = Annotated[int, Field(ge=1, lt=2**63)]
Number = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Divisor = Annotated[float, Field(ge=1e-9, le=1e18, allow_inf_nan=False)]


@dataclass(frozen=True)
class TaskRecord:
    """The task of a run; `fingerprint` depends on its content only.

    `label_counts` says how often each label occurs in the splits `validation` and `test`.
    """

    kind: str
    dataset: str
    fingerprint: str
    train_examples: AtLeastOne
    labels: tuple[str, ...]
    coverage: Mapping[str, Any] | None = None  # how well the tokenizer covers the words
    warnings: tuple[str, ...] = ()
    label_counts: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRecord:
    """The model of a run; `fingerprint` depends on its starting weights only."""

    name: str
    blocks: Annotated[int, Field(ge=0, le=100_000)]
    parameters: Count
    fingerprint: str | None = None


@dataclass(frozen=True)
class Metrics:
    """Scores on the test split, between 0 and 1; `entity_f1` is None for classification."""

    accuracy: Number
    macro_f1: Number
    weighted_f1: Number
    entity_f1: Number | None = None
    per_class: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationPoint:
    """Scores on the validation split after `step` steps, which took `seconds` of training time."""

    step: Count
    epoch: Amount
    macro_f1: Number
    seconds: Amount
    accuracy: Number | None = None
    weighted_f1: Number | None = None
    entity_f1: Number | None = None
    loss: Number | None = None


@dataclass(frozen=True)
class Timing:
    """How steady the times of a run are.

    Attributes:
        median: Median time of a step in seconds.
        lower: First quartile of the time of a step.
        upper: Third quartile of the time of a step.
        load_average: Mean load average of the machine during the steps.
    """

    median: Amount
    lower: Amount
    upper: Amount
    load_average: Amount

    @classmethod
    def of(cls, step_seconds: Sequence[float], load_average: float) -> Timing:
        """Return the timing of at least one step."""
        lower, median, upper = (float(q) for q in np.quantile(np.asarray(step_seconds), (0.25, 0.5, 0.75)))
        return cls(median, lower, upper, load_average)


@dataclass(frozen=True)
class SignalRecord:
    """One signal of an adaptive policy at a decision point: a value per unit, such as `block 3`."""

    step: Count
    name: str
    values: Mapping[str, Number]


@dataclass(frozen=True)
class Matched:
    """How the epochs of a run were chosen so that it takes the training time of full fine-tuning.

    Attributes:
        epochs: Epochs of the run.
        predicted_epochs: Epochs predicted by the cost model.
        reference_seconds: Training time of full fine-tuning in seconds.
        attempts: How often the run was trained.
    """

    epochs: Amount
    predicted_epochs: Amount
    reference_seconds: Amount
    attempts: Count


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        scenario: `str(policy)`.
        seed: The seed.
        cache: Whether a prefix cache was requested.
        task: The record of the task.
        model: The record of the model.
        metrics: Scores on the test split, None if it was not used, as in the trials of a search.
        validation: The validation curve.
        train_loss: Mean training loss.
        train_seconds: Time of the training steps, without evaluation, loading or saving.
        eval_seconds: Time of all evaluations on the validation and test splits, always by the clock on the wall.
        steps: Number of optimizer steps.
        samples_per_second: Training examples per second of training time.
        trainable_parameters: Number of trainable parameters at the end.
        frozen_fraction: Fraction of frozen parameters at the end.
        predicted_step_ratio: Predicted time of the run as a multiple of that of full fine-tuning.
        peak_memory_bytes: Peak memory of the run itself.
        energy_joules: Energy of the training steps, None if it cannot be measured.
        timeline: The masks of the run.
        environment: Versions, device and data type.
        settings: The settings that the result depends on.
        cache_stats: Statistics of the prefix cache.
        matched: How the epochs were chosen, if the run takes the time of full fine-tuning.
        full_fine_tuning: Whether the policy freezes nothing, so that other runs are compared with this one.
        timing: How steady the times are; None in results of earlier versions.
        signals: What the policy measured at its decision points, as far as it is one number per unit.
        order: Position among the runs of its process, from 0.
        status: `done`.
        schema: Version of the file format.
    """

    scenario: str
    seed: Count
    cache: bool
    task: TaskRecord
    model: ModelRecord
    metrics: Metrics | None
    validation: tuple[ValidationPoint, ...]
    train_loss: Number
    train_seconds: Divisor
    eval_seconds: Amount
    steps: AtLeastOne
    samples_per_second: Amount
    trainable_parameters: Count
    frozen_fraction: Amount
    predicted_step_ratio: Divisor
    peak_memory_bytes: Count
    energy_joules: Amount | None
    timeline: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cache_stats: Mapping[str, Any] | None = None
    matched: Matched | None = None
    full_fine_tuning: bool = False
    timing: Timing | None = None
    signals: tuple[SignalRecord, ...] = ()
    order: Count = 0
    status: str = "done"
    schema: int = SCHEMA

    @property
    def epochs(self) -> float:
        """Passes over the training examples."""
        return self.samples_per_second * self.train_seconds / self.task.train_examples

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, `schema` first."""
        return _plain(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunResult:
        """Return the result that `to_json` wrote, ignoring unknown keys.

        Raises:
            ValueError: A field is missing, has the wrong type or is out of range.
        """
        run: RunResult = read_record(cls, value)
        timeline = read_record(tuple[_TimelineEntry, ...], value["timeline"])
        _check_masks(timeline, run.model.blocks)
        if "full_fine_tuning" not in value:
            run = replace(run, full_fine_tuning=_froze_nothing(timeline))
        stats = run.cache_stats
        return run if stats is None else replace(run, cache_stats=asdict(read_record(_StoredStats, stats)))


@dataclass(frozen=True)
class FailedRun:
    """One failed run; `error` is a sentence that says why. The same command repeats it."""

    scenario: str
    seed: Count
    cache: bool
    task: TaskRecord
    model: ModelRecord
    error: str
    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    order: Count = 0
    status: str = "failed"
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, `schema` first."""
        return _plain(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FailedRun:
        """Return the record that `to_json` wrote, as `RunResult.from_json` does."""
        run: FailedRun = read_record(cls, value)
        return run


def read_run(path: Path) -> RunResult | FailedRun:
    """Return the run stored at `path`.

    Raises:
        RequestError: The file cannot be read or has another schema.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it contains no object")
        if value.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {value.get('schema')!r}, not {SCHEMA}")
        kind = FailedRun if value.get("status") == "failed" else RunResult
        return kind.from_json(value)
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{path} is not a result that this version can read ({error}): move it or choose another folder."
        ) from error


def read_record(kind: Any, value: Any) -> Any:
    """Return the dataclass, or tuple of dataclasses, that plain JSON describes. Unknown keys are ignored.

    Args:
        kind: The type. The annotations of its fields are the rules.
        value: Plain JSON.

    Raises:
        ValueError: A field is missing, has the wrong type or is out of range; the message names the first one.
    """
    try:
        return _adapter(kind).validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place or 'the value'}: {first['msg'].lower()}") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` atomically.

    Raises:
        ValueError: `value` contains NaN or infinity, which JSON cannot represent.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 atomically: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _plain(record: RunResult | FailedRun) -> dict[str, Any]:
    value = asdict(record)
    return {"schema": value.pop("schema"), "status": value.pop("status"), **value}


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True)
class _TimelineEntry:
    """An entry of `Timeline.to_json`; results of earlier versions have no `frozen`."""

    step: Count
    mask: str
    reason: str
    frozen: Mapping[str, Any] | None = None


@dataclass
class _StoredStats(CacheStats):
    """`CacheStats.to_json`."""

    hits: Count = 0
    misses: Count = 0
    carried: Count = 0
    rows: Count = 0
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    refused: Count = 0
    seconds_spent: Amount = 0.0
    seconds_saved: Amount = 0.0
    hit_rate: Amount = 0.0


def _check_masks(timeline: Sequence[_TimelineEntry], blocks: int) -> None:
    """Raise `ValueError` unless the steps are in order, and each mask is one of a model of `blocks` blocks."""
    if [entry.step for entry in timeline] != sorted(entry.step for entry in timeline):
        raise ValueError("timeline: the steps are not in order")
    for entry in timeline:
        if entry.frozen is None:
            continue
        try:
            if entry.frozen["depth"] != blocks:
                raise ValueError(f"a mask of {entry.frozen['depth']} blocks for a model of {blocks}")
            FreezeMask.from_json(entry.frozen)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"timeline: the mask at step {entry.step} cannot be read ({error})") from error


def _froze_nothing(timeline: Sequence[_TimelineEntry]) -> bool:
    """Whether a result without the field `full_fine_tuning` is of a static policy whose mask is empty."""
    return [(entry.mask.partition(" | ")[0], entry.reason) for entry in timeline] == [("-", "static")]
