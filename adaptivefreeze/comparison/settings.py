"""StudySettings: how every run of a study is trained, and the TrainingArguments that say so to Trainer."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import RequestError

# Random batches of examples of like length: with dynamic padding half the work of batches of any length.
_SAMPLING = "group_by_length"

# What a study sets itself, and what to say instead.
_OWN_OPTIONS = {
    "num_train_epochs": "--epochs",
    "per_device_train_batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
    "eval_steps": "--eval-steps",
    "output_dir": "--output",
    "seed": "--seeds",
    "data_seed": "--seeds",
    "use_cpu": "--device",
}
_FIXED = {
    "eval_strategy": "validation is evaluated after every epoch, and every --eval-steps steps where given",
    "logging_nan_inf_filter": "a loss that is not a number must be seen",
    "disable_tqdm": "the command draws its own progress",
    "report_to": "the result files are the report",
    "auto_find_batch_size": "scenarios with different batch sizes could not be compared",
    "push_to_hub": "a study publishes nothing",
    "remove_unused_columns": "the data set has just the columns that the model takes",
}


@dataclass(frozen=True)
class StudySettings:
    """How each run is trained: the same for every scenario and seed of a study.

    `match`: every run has these `epochs` (`steps`), or as many as full fine-tuning's seconds for them pay for (`time`).
    `eval_steps` asks for more evaluations of the validation split than the one after each epoch.
    `training_arguments` are further fields of `transformers.TrainingArguments`.
    Raises `RequestError` for a value that cannot be.
    """

    epochs: float = 3.0
    batch_size: int = 16
    learning_rate: float = 5e-5
    cache: bool = False
    eval_steps: int | None = None
    device: str | None = None
    match: str = "steps"
    training_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "eval_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RequestError(f"--{name.replace('_', '-')} {value} is not possible: give a number above 0.")
        if self.match not in ("steps", "time"):
            raise RequestError(f"--match {self.match} is unknown: give steps or time.")
        if self.device not in (None, "cpu", "cuda"):
            raise RequestError(f"--device {self.device} is unknown: give cpu or cuda, or leave it out.")

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether Trainer is asked to save while it trains."""
        return str(self.training_arguments.get("save_strategy", "no")) != "no"

    @property
    def groups_by_length(self) -> bool:
        """Whether a batch is made of examples of like length."""
        return str(self.training_arguments.get("train_sampling_strategy", _SAMPLING)) == "group_by_length"

    def to_json(self) -> dict[str, Any]:
        """What the quality of a result depends on, as plain JSON; the device is part of its environment instead."""
        value = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}
        return {**value, "training_arguments": dict(sorted(self.training_arguments.items()))}

    def arguments(self, output_dir: str, seed: int) -> Any:
        """The `transformers.TrainingArguments` of one run with `seed`, which decides dropout and data order.

        Raises `RequestError` when Trainer does not take the values or the device is not there.
        """
        import torch
        from transformers import TrainingArguments

        if self.device == "cuda" and not torch.cuda.is_available():
            raise RequestError("--device cuda was asked for, but torch sees no CUDA device here: leave it out.")
        values = {
            "output_dir": output_dir,
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.batch_size,
            "per_device_eval_batch_size": max(self.batch_size, 32),
            "learning_rate": self.learning_rate,
            "seed": seed,
            "data_seed": seed,
            "eval_strategy": "epoch" if self.eval_steps is None else "steps",
            "eval_steps": self.eval_steps,
            "logging_steps": 10,
            "train_sampling_strategy": _SAMPLING,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_nan_inf_filter": False,
            # Said outright where there is nothing else: bf16 is refused on a CPU that was merely fallen back to.
            "use_cpu": self.device == "cpu" or not torch.accelerator.is_available(),
            **self.training_arguments,
        }
        try:
            arguments = TrainingArguments(**values)
        except (ValueError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise RequestError(f"Trainer does not take these settings: {reason}.") from error
        if arguments.n_gpu > 1:
            # One device a run: several would go through DataParallel, whose replicas hold no requires_grad flags.
            arguments._n_gpu = 1
        return arguments


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["warmup_steps=100", "bf16=true"]` -> `{"warmup_steps": 100, "bf16": True}`, typed as TrainingArguments says.

    Raises `RequestError` for what is no `name=value`, no field, a field that a study sets itself, or a wrong type.
    """
    if not assignments:
        return {}
    from transformers import HfArgumentParser, TrainingArguments

    known = {f.name for f in fields(TrainingArguments) if f.init}
    described: Any = TrainingArguments  # a dataclass, which the parser's own annotation does not admit
    parser = HfArgumentParser(described, exit_on_error=False, add_help=False)
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise RequestError(f"--set {assignment} is no name=value: write for example --set warmup_steps=100.")
        if name in _OWN_OPTIONS:
            raise RequestError(f"--set {name} is decided by its own option: give {_OWN_OPTIONS[name]} instead.")
        if name in _FIXED:
            raise RequestError(f"--set {name} is not possible, because {_FIXED[name]}: leave it out.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see the documentation of TrainingArguments."
            raise RequestError(f"--set {name} names no field of TrainingArguments: {hint}")
        try:
            parsed, _ = parser.parse_known_args([f"--{name}={text.strip()}"])
        except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
            reason = str(error).rstrip(".")
            raise RequestError(f"--set {assignment} does not fit the field: {reason}.") from error
        values[name] = getattr(parsed, name)
    return values
