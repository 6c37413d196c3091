"""`RunResult` and `FailedRun`: the measurements of one run, stored atomically in one JSON file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RequestError

SCHEMA = 1
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class TaskRecord:
    """The task of a run; `fingerprint` depends on its content only."""

    kind: str
    dataset: str
    fingerprint: str
    train_examples: int
    labels: tuple[str, ...]
    coverage: Mapping[str, Any] | None = None  # how well the tokenizer covers the words
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRecord:
    """The model of a run; `fingerprint` depends on its starting weights only."""

    name: str
    blocks: int
    parameters: int
    fingerprint: str | None = None


@dataclass(frozen=True)
class Metrics:
    """Scores on the test split, between 0 and 1; `entity_f1` is None for classification."""

    accuracy: float
    macro_f1: float
    weighted_f1: float
    entity_f1: float | None = None
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationPoint:
    """Scores on the validation split after `step` steps, which took `seconds` of training time."""

    step: int
    epoch: float
    macro_f1: float
    seconds: float
    accuracy: float | None = None
    weighted_f1: float | None = None
    entity_f1: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Matched:
    """How the epochs of a run were chosen so that it takes the training time of full fine-tuning.

    Attributes:
        epochs: Epochs of the run.
        predicted_epochs: Epochs predicted by the cost model.
        reference_seconds: Training time of full fine-tuning in seconds.
        attempts: How often the run was trained.
    """

    epochs: float
    predicted_epochs: float
    reference_seconds: float
    attempts: int


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
        eval_seconds: Time of all evaluations on the validation and test splits.
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
        order: Position among the runs of its process, from 0.
        status: `done`.
        schema: Version of the file format.
    """

    scenario: str
    seed: int
    cache: bool
    task: TaskRecord
    model: ModelRecord
    metrics: Metrics | None
    validation: tuple[ValidationPoint, ...]
    train_loss: float
    train_seconds: float
    eval_seconds: float
    steps: int
    samples_per_second: float
    trainable_parameters: int
    frozen_fraction: float
    predicted_step_ratio: float
    peak_memory_bytes: int
    energy_joules: float | None
    timeline: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cache_stats: Mapping[str, Any] | None = None
    matched: Matched | None = None
    full_fine_tuning: bool = False
    order: int = 0
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
            ValueError: A field is missing.
        """
        known = _known(cls, value)
        return cls(
            **{
                **known,
                "task": _task(value),
                "model": _build(ModelRecord, value, "model"),
                "metrics": None if known.get("metrics", ...) is None else _build(Metrics, value, "metrics"),
                "validation": tuple(ValidationPoint(**_known(ValidationPoint, point)) for point in known["validation"]),
                "timeline": tuple(known["timeline"]),
                "matched": _build(Matched, value, "matched") if known.get("matched") else None,
                "full_fine_tuning": (
                    known["full_fine_tuning"] if "full_fine_tuning" in known else _froze_nothing(known["timeline"])
                ),
            }
        )


@dataclass(frozen=True)
class FailedRun:
    """One failed run; `error` is a sentence that says why. The same command repeats it."""

    scenario: str
    seed: int
    cache: bool
    task: TaskRecord
    model: ModelRecord
    error: str
    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    order: int = 0
    status: str = "failed"
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, `schema` first."""
        return _plain(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FailedRun:
        """Return the record that `to_json` wrote, as `RunResult.from_json` does."""
        known = _known(cls, value)
        return cls(**{**known, "task": _task(value), "model": _build(ModelRecord, value, "model")})


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
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(
            f"{path} is not a result that this version can read ({error}): move it or choose another folder."
        ) from error


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


def _known(record: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `value` that `record` has fields for."""
    names = {f.name for f in fields(record)}
    return {name: item for name, item in value.items() if name in names}


def _build(record: type[_Record], value: Mapping[str, Any], key: str) -> _Record:
    if not isinstance(value.get(key), Mapping):
        raise ValueError(f"it has no {key!r}")
    return record(**_known(record, value[key]))


def _froze_nothing(timeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a result without the field `full_fine_tuning` is of a static policy whose mask is empty."""
    return [(change["mask"].partition(" | ")[0], change["reason"]) for change in timeline] == [("-", "static")]


def _task(value: Mapping[str, Any]) -> TaskRecord:
    task = dict(value["task"]) if isinstance(value.get("task"), Mapping) else {}
    texts: dict[str, Sequence[str]] = {name: tuple(task.get(name) or ()) for name in ("labels", "warnings")}
    return TaskRecord(**_known(TaskRecord, {**task, **texts}))
