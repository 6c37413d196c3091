"""What a callback is not told: the Trainer that runs, the checkpoint it resumes, its failure, and raw gradients."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import RequestError
from ..policies import Policy
from .schedule_pace import Pace

logger = logging.getLogger(__name__)

TENSORS = "freezing.safetensors"


def running_trainer() -> Trainer | None:
    """The Trainer whose method is calling: events carry everything but the Trainer itself."""
    return next((t for f in _frames() if isinstance(t := f.f_locals.get("self"), Trainer)), None)


def resumed_checkpoint() -> Path | None:
    """The folder that the running `train()` resumes from, or None."""
    for frame in _frames():
        if isinstance(frame.f_locals.get("self"), Trainer):
            folder = frame.f_locals.get("resume_from_checkpoint")
            if isinstance(folder, (str, os.PathLike)):
                return Path(folder)
    return None


def resumed_state(
    callback: TrainerCallback, policy: Policy, saved: Mapping[str, Any] | None, state: TrainerState
) -> dict[str, Any] | None:
    """What the checkpoint that this run goes on from says of freezing by `policy`; None for a run from the start.

    `saved`: what Trainer has restored of it into `callback`, which it does if it is told to.
    """
    if state.global_step == 0:
        return None
    callbacks: Any = state.stateful_callbacks
    entry = callbacks.get(type(callback).__name__)
    if isinstance(entry, list):
        entry = entry[0]
    if saved is None and entry:
        saved = entry.get("attributes", {}).get("saved")
    if saved is None or saved["mask"] is None:
        logger.warning("The checkpoint says nothing about freezing: %s starts afresh here.", policy)
        return None
    if saved["policy"] != str(policy):
        logger.warning("The checkpoint was frozen by %s: %s starts afresh here.", saved["policy"], policy)
        return None
    return dict(saved)


def refuse_second(trainer: Trainer, kind: type[TrainerCallback]) -> None:
    """Raises `RequestError` when `trainer` has more than one callback of this kind."""
    count = sum(isinstance(callback, kind) for callback in trainer.callback_handler.callbacks)
    if count > 1:
        raise RequestError(f"this Trainer has {count} {kind.__name__}s: keep one, with one policy.")


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


class Patches:
    """Methods of objects replaced for a time, each by a function that gets the original first."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, str, Any]] = []

    def put(self, target: Any, name: str, wrapper: Callable[..., Any], *, for_good: bool = False) -> None:
        """`target.name(...)` -> `wrapper(original, ...)`, until `remove`, or for good."""
        before = vars(target).get(name)
        original = getattr(target, name)
        bound = functools.partial(wrapper, original)
        setattr(target, name, functools.update_wrapper(bound, original))
        if not for_good:
            self._made.append((target, name, before))

    def remove(self) -> None:
        """Give every method back, the last replaced first."""
        for target, name, before in reversed(self._made):
            if before is None:
                del vars(target)[name]
            else:
                vars(target)[name] = before
        self._made = []


def watch_failure(
    patches: Patches, trainer: Trainer, name: str, failed: Callable[[], None], *, for_good: bool = False
) -> None:
    """Call `failed` when `trainer.<name>()` ends in an exception, of which Trainer tells its callbacks nothing."""

    def guarded(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except BaseException:
            failed()
            raise

    patches.put(trainer, name, guarded, for_good=for_good)


def watch_raw_gradients(patches: Patches, trainer: Trainer, model: nn.Module, ready: Callable[[], None]) -> None:
    """Call `ready` in each optimizer step when gradients are summed, reduced over ranks, unscaled, and not yet clipped.

    Trainer asks accelerate for the gradients' norm in every step, whether it clips or not, and accelerate undoes AMP's
    scale first: right after that. Gradients that overflowed, of a step that AMP will skip, are not announced.
    """
    accelerator: Any = trainer.accelerator

    def unscaled(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if accelerator.scaler is None or _all_finite(model):
            ready()
        return result

    patches.put(accelerator, "unscale_gradients", unscaled)


def _all_finite(model: nn.Module) -> bool:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return bool(torch.stack([norm.isfinite() for norm in torch._foreach_norm(gradients)]).all())


def passes_to_go(state: TrainerState, pace: Pace) -> float | None:
    """How many more times the training data is gone through; None where its length is not known."""
    if not state.num_train_epochs or not state.max_steps:
        return None
    steps = max(0.0, state.max_steps - state.global_step - pace.ahead) / pace.rate
    return steps * state.num_train_epochs / state.max_steps


def count_examples(loader: Any) -> int | None:
    """Training examples of this process; None for a stream."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return None


def steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> float:
    """Optimizer steps in one pass over the data; the whole run where the data is a stream."""
    try:
        return math.ceil(len(loader) / args.gradient_accumulation_steps)
    except TypeError:
        return max(1, state.max_steps)


def save_tensors(tensors: Mapping[str, torch.Tensor], args: TrainingArguments, state: TrainerState) -> None:
    """Put `tensors` beside the checkpoint that was just written, whole or not at all."""
    folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    if not tensors or not folder.is_dir():
        return
    part = folder / f"{TENSORS}.part"
    save_file({name: value.contiguous() for name, value in tensors.items()}, part)
    os.replace(part, folder / TENSORS)


def load_tensors(folder: Path | None) -> dict[str, torch.Tensor]:
    """What `save_tensors` put into `folder`; nothing where it put nothing."""
    path = None if folder is None else folder / TENSORS
    return load_file(path) if path is not None and path.exists() else {}
