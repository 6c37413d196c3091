"""Access to what the Trainer does not pass to its callbacks: itself, the checkpoint it resumes, failures, gradients."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy

from ..cache.transfer import collate_on_host
from ..errors import RequestError
from ..model.sharding import full
from .policy_runner import PolicyRunner, TrainingPlan

logger = logging.getLogger(__name__)

_LOSS_ALONE = ("loss", "runtime", "samples_per_second", "steps_per_second")  # of an evaluation without own metrics


def running_trainer() -> Trainer | None:
    """Return the Trainer whose method is running, or None."""
    return next((t for f in _frames() if isinstance(t := f.f_locals.get("self"), Trainer)), None)


def resumed_checkpoint(error: BaseException | None = None) -> Path | None:
    """Return the folder that the running `Trainer.train()` resumes from, or the one that ended in `error`, or None."""
    for frame in _frames() if error is None else (frame for frame, _ in traceback.walk_tb(error.__traceback__)):
        if isinstance(frame.f_locals.get("self"), Trainer):
            folder = frame.f_locals.get("resume_from_checkpoint")
            if isinstance(folder, (str, os.PathLike)):
                return Path(folder)
    return None


def checkpoint_folder(trainer: Trainer | None, args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint that the Trainer writes after the current step."""
    root = str(args.output_dir)
    if trainer is not None and trainer.hp_search_backend is not None:
        root = trainer._get_output_dir(trainer._trial)  # each trial has a folder of its own
    return Path(root) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def training_plan(trainer: Trainer | None, args: TrainingArguments, state: TrainerState, loader: Any) -> TrainingPlan:
    """Return what is known about the run that begins.

    Args:
        trainer: The Trainer, if it is known.
        args: Its arguments.
        state: Its state.
        loader: The loader of the training data.
    """
    sets = getattr(trainer, "eval_dataset", None)
    return TrainingPlan(
        total_steps=state.max_steps,
        steps_per_epoch=steps_per_epoch(args, state, loader),
        epochs=state.num_train_epochs,
        examples=_count_examples(loader),
        accumulation=args.gradient_accumulation_steps,
        evaluation_sets=len(sets) if isinstance(sets, dict) else 1,
        loss_scaled=trainer is not None and getattr(trainer.accelerator, "scaler", None) is not None,
        seed=args.seed,
    )


def seen_tokens(loader: Any) -> set[int]:
    """Return the tokens in the `input_ids` of the training data of a loader.

    Raises:
        RequestError: If the data is a stream, or has no `input_ids`.
    """
    examples: Any = getattr(loader, "dataset", None)
    if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
        raise RequestError(
            "the tokens that occur in a stream are not known before training: list the rows of the embeddings that are "
            "to train, as in embedding-rows:rows=0-999."
        )
    found: set[int] = set()
    for index in range(len(examples)):
        example = examples[index]
        if not isinstance(example, Mapping) or "input_ids" not in example:
            raise RequestError(
                "the training data has no input_ids, so the tokens in it are not known: list the rows of the "
                "embeddings that are to train, as in embedding-rows:rows=0-999."
            )
        found.update(torch.as_tensor(example["input_ids"]).flatten().tolist())
    return found


def steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> float:
    """Return the optimizer steps in one pass over the data, or in the whole run if the data is a stream."""
    try:
        return math.ceil(len(loader) / args.gradient_accumulation_steps)
    except TypeError:
        return max(1, state.max_steps)


def check_evaluations(
    runner: PolicyRunner, plan: TrainingPlan, trainer: Trainer | None, args: TrainingArguments, state: TrainerState
) -> None:
    """Check that the evaluations of the Trainer report what an adaptive policy decides by.

    Args:
        runner: Runs the policy.
        plan: The training run.
        trainer: The Trainer, if it is known.
        args: Its arguments.
        state: Its state.

    Raises:
        RequestError: If the policy decides after evaluations and there are none, or they do not report its metric.
    """
    policy, after_evaluations = runner.policy, runner.decision_points.evaluations
    if after_evaluations and args.eval_strategy == IntervalStrategy.NO:
        raise RequestError(
            f"{policy} decides after evaluations, and there are none: set eval_strategy to 'epoch' or 'steps'."
        )
    metric = (policy.watched_metric or "loss").removeprefix("eval_")
    if trainer is not None and _unreported(trainer, metric):
        raise RequestError(
            f"{policy} decides by {metric}, but the Trainer has no compute_metrics, so that evaluations report the "
            "loss alone: pass compute_metrics to the Trainer, or choose metric='loss'."
        )
    if after_evaluations and not _evaluates_in_time(args, state, plan):
        logger.warning(
            "%s decides after evaluations, but none comes before the last of %d steps (eval_steps=%s, eval_delay=%s): "
            "the mask will not change.",
            *(policy, state.max_steps, args.eval_steps, args.eval_delay),
        )


def _evaluates_in_time(args: TrainingArguments, state: TrainerState, plan: TrainingPlan) -> bool:
    """Return whether the Trainer evaluates before the last step of the run, given that it evaluates at all."""
    interval = plan.steps_per_epoch if args.eval_strategy == IntervalStrategy.EPOCH else state.eval_steps
    delay = args.eval_delay * plan.steps_per_epoch if args.eval_strategy == IntervalStrategy.EPOCH else args.eval_delay
    return interval * max(1, math.ceil(delay / interval)) < state.max_steps


def _unreported(trainer: Trainer, metric: str) -> bool:
    """Return whether no evaluation will report `metric`, because the Trainer has no metrics but the loss."""
    kind = type(trainer)
    own = (kind.evaluate, kind.evaluation_loop) != (Trainer.evaluate, Trainer.evaluation_loop)
    if trainer.compute_metrics is not None or own:
        return False
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {}
    return metric not in {*_LOSS_ALONE, *(f"{name}_{metric}" for name in sets for metric in _LOSS_ALONE)}


def refuse_second(trainer: Trainer, kind: type[TrainerCallback]) -> None:
    """Raise `RequestError` if `trainer` has more than one callback of this class."""
    count = sum(isinstance(callback, kind) for callback in trainer.callback_handler.callbacks)
    if count > 1:
        raise RequestError(f"this Trainer has {count} {kind.__name__}s: keep one, with one policy.")


class Patches:
    """Temporary replacements of methods, and of other attributes, on single objects."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

    def replace(self, target: Any, name: str, wrapper: Callable[..., Any], *, permanent: bool = False) -> None:
        """Make `target.name(...)` call `wrapper(original, ...)`, until `remove` or permanently."""
        before = vars(target).get(name)
        original = getattr(target, name)
        bound = functools.partial(wrapper, original)
        setattr(target, name, functools.update_wrapper(bound, original))
        if not permanent:
            self._replaced.append((target, name, before))

    def set(self, target: Any, name: str, value: Any) -> None:
        """Make `target.name` be `value`, until `remove`."""
        self._replaced.append((target, name, vars(target).get(name)))
        setattr(target, name, value)

    def remove(self) -> None:
        """Restore everything, the last replaced first."""
        for target, name, before in reversed(self._replaced):
            if before is None:
                del vars(target)[name]
            else:
                vars(target)[name] = before
        self._replaced = []


def on_failure(
    patches: Patches, trainer: Trainer, name: str, failed: Callable[[BaseException], None], *, permanent: bool = False
) -> None:
    """Call `failed` with the exception when `trainer.<name>()` raises. The Trainer has no event for that."""

    def guarded(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except BaseException as error:
            failed(error)
            raise

    patches.replace(trainer, name, guarded, permanent=permanent)


def skip_training(patches: Patches, trainer: Trainer) -> None:
    """End the run that begins before its first step. The Trainer checks `should_training_stop` only after a step."""

    def ended(original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        trainer.control.should_training_stop = True

    patches.replace(trainer, "_run_epoch", ended)


def on_raw_gradients(patches: Patches, trainer: Trainer, model: nn.Module, ready: Callable[[], None]) -> None:
    """Call `ready` in each step when gradients are accumulated, averaged over ranks and unscaled, but not clipped.

    The Trainer asks accelerate for the norm of the gradients in every step, whether it clips or not, and accelerate
    first removes the loss scale of AMP. `ready` is called right after that. It is not called when the gradients have
    overflowed, because AMP skips that step.
    """
    accelerator: Any = trainer.accelerator

    def unscaled(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if accelerator.scaler is None or all_finite(model):
            ready()
        return result

    patches.replace(accelerator, "unscale_gradients", unscaled)


def keep_host_copies(patches: Patches, loader: Any) -> None:
    """Let the cache read the batches of a loader in host memory, before accelerate moves them to the device."""
    if isinstance(loader, DataLoaderShard) and loader.device is not None and torch.device(loader.device).type != "cpu":
        patches.replace(loader.base_dataloader, "collate_fn", collate_on_host)


def all_finite(model: nn.Module) -> bool:
    """Return whether all gradients of `model` are finite."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return not gradients or bool(torch.stack([full(norm).isfinite() for norm in torch._foreach_norm(gradients)]).all())


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _count_examples(loader: Any) -> int | None:
    """Training examples of this process; None for a stream."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return None
