"""`StudySettings`: how every run of a study is trained, and the `TrainingArguments` for it."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import RequestError

# Random batches of examples of similar length: with dynamic padding, half the work of arbitrary batches.
_SAMPLING = "group_by_length"

# Fields of TrainingArguments that have an option of their own.
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
    "logging_nan_inf_filter": "a loss that is not finite must be logged",
    "disable_tqdm": "the command shows its own progress",
    "report_to": "the result files are the report",
    "auto_find_batch_size": "scenarios with different batch sizes are not comparable",
    "push_to_hub": "a study publishes nothing",
    "remove_unused_columns": "the data set has exactly the columns of the model's inputs",
}


@dataclass(frozen=True)
class StudySettings:
    """How each run is trained, the same for every scenario and seed of a study.

    Args:
        epochs: Passes over the training examples.
        batch_size: Examples per step.
        learning_rate: Peak learning rate.
        cache: Whether to use a prefix cache.
        eval_steps: Evaluate the validation split every so many steps, besides after each epoch.
        device: `cpu` or `cuda`; the best available one if None.
        clock: `wall` for the time that steps take, `processor` for the processor time that this process spends on them,
            summed over its threads.
        match: `steps` for equal epochs, `time` for as many epochs as fit into the training time of full fine-tuning.
        training_arguments: Further fields of `transformers.TrainingArguments`.

    Raises:
        RequestError: A value is out of range.
    """

    epochs: float = 3.0
    batch_size: int = 16
    learning_rate: float = 5e-5
    cache: bool = False
    eval_steps: int | None = None
    device: str | None = None
    clock: str = "wall"
    match: str = "steps"
    training_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "eval_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RequestError(f"--{name.replace('_', '-')} {value} is not possible: pass a number greater than 0.")
        if self.match not in ("steps", "time"):
            raise RequestError(f"--match {self.match} is unknown: pass steps or time.")
        if self.clock not in ("wall", "processor"):
            raise RequestError(f"--clock {self.clock} is unknown: pass wall or processor.")
        if self.device not in (None, "cpu", "cuda"):
            raise RequestError(f"--device {self.device} is unknown: pass cpu or cuda, or omit it.")

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether Trainer saves checkpoints."""
        return str(self.training_arguments.get("save_strategy", "no")) != "no"

    @property
    def groups_by_length(self) -> bool:
        """Whether a batch consists of examples of similar length."""
        return str(self.training_arguments.get("train_sampling_strategy", _SAMPLING)) == "group_by_length"

    def to_json(self) -> dict[str, Any]:
        """Return the settings that a result depends on, as plain JSON, without the device and the usual clock."""
        value = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}
        if self.clock == "wall":
            del value["clock"]
        return {**value, "training_arguments": dict(sorted(self.training_arguments.items()))}

    def arguments(self, output_dir: str, seed: int) -> Any:
        """Return the `transformers.TrainingArguments` of one run.

        Args:
            output_dir: The folder for checkpoints.
            seed: The seed of dropout and of the order of the data.

        Raises:
            RequestError: The values are invalid, or the device is not available.
        """
        import torch
        from transformers import TrainingArguments

        if self.device == "cuda" and not torch.cuda.is_available():
            raise RequestError("--device cuda is not possible, because torch finds no CUDA device: omit it.")
        if self.clock == "processor" and self.device != "cpu" and torch.accelerator.is_available():
            raise RequestError("--clock processor does not count the work of an accelerator: add --device cpu.")
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
            # Explicit without an accelerator: otherwise TrainingArguments rejects bf16 on the CPU.
            "use_cpu": self.device == "cpu" or not torch.accelerator.is_available(),
            **self.training_arguments,
        }
        try:
            arguments = TrainingArguments(**values)
        except (ValueError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise RequestError(f"TrainingArguments rejects these settings: {reason}.") from error
        if arguments.n_gpu > 1:
            # One device per run: the replicas of DataParallel have no requires_grad flags.
            arguments._n_gpu = 1
        return arguments


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse fields of `TrainingArguments` with the types that they are annotated with.

    Args:
        assignments: Texts `name=value`.

    Raises:
        RequestError: A text is not `name=value`, the field is unknown or set by the study, or the type is wrong.

    Example:
        >>> parse_assignments(["warmup_steps=100", "bf16=true"])
        {'warmup_steps': 100.0, 'bf16': True}
    """
    if not assignments:
        return {}
    from transformers import HfArgumentParser, TrainingArguments

    known = {f.name for f in fields(TrainingArguments) if f.init}
    described: Any = TrainingArguments  # a dataclass, which the annotation of the parser does not allow
    parser = HfArgumentParser(described, exit_on_error=False, add_help=False)
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise RequestError(f"--set {assignment} is not name=value: write for example --set warmup_steps=100.")
        if name in _OWN_OPTIONS:
            raise RequestError(f"--set {name} has an option of its own: use {_OWN_OPTIONS[name]} instead.")
        if name in _FIXED:
            raise RequestError(f"--set {name} is not possible, because {_FIXED[name]}: omit it.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see the documentation of TrainingArguments."
            raise RequestError(f"--set {name} is not a field of TrainingArguments: {hint}")
        try:
            parsed, _ = parser.parse_known_args([f"--{name}={text.strip()}"])
        except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
            reason = str(error).rstrip(".")
            raise RequestError(f"--set {assignment} is invalid: {reason}.") from error
        values[name] = getattr(parsed, name)
    return values
