"""Lets a Trainer train the examples that a sieve keeps, weighted, and resume in the right epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler
from transformers import Trainer

from ..errors import RequestError
from ..policies import Policy
from .checkpoint import SavedRun
from .data_sieve import DataSieve, SievedSampler
from .example_losses import ExampleLosses
from .hooks import Patches, resumed_checkpoint
from .run import FreezingRun


def resume_in_sieved_epoch(patches: Patches, trainer: Trainer, policy: Callable[[], Policy]) -> None:
    """Let every later training of `trainer` resume in the epoch of its checkpoint, and after the batches trained in it.

    The Trainer computes both from the number of steps, as if all epochs had the same number.

    Args:
        patches: Hold the changes to the Trainer.
        trainer: The Trainer.
        policy: Returns the policy of the training that begins.
    """

    def position(original: Callable[..., tuple[int, int]], *args: Any, **kwargs: Any) -> tuple[int, int]:
        found = original(*args, **kwargs)
        folder = resumed_checkpoint()
        if policy().sieve is None or folder is None or not trainer.state.global_step:
            return found
        saved = SavedRun.load(folder)
        if saved is None or not saved.sieve or not saved.is_of(policy()):
            return found
        return saved.sieve["epoch"], 0 if trainer.args.ignore_data_skip else saved.sieve["batches"]

    if hasattr(trainer, "_init_training_state"):  # absent in early versions of transformers 5
        patches.replace(trainer, "_init_training_state", position, permanent=True)


class SievedTraining:
    """The sieve of a run in a Trainer. The Trainer has no event for most of this, so methods of it are wrapped.

    Args:
        patches: Hold the changes to the Trainer and its loader.
        trainer: The Trainer, if it is known.
        run: The run, with a sieve.
        loader: The loader of the training data.
        early: Whether the callback was there when the Trainer was made.

    Raises:
        RequestError: If the Trainer cannot leave out examples.
    """

    def __init__(
        self, patches: Patches, trainer: Trainer | None, run: FreezingRun, loader: Any, *, early: bool
    ) -> None:
        assert run.sieve is not None
        sampler: Any = getattr(loader, "batch_sampler", None)
        reason = _obstacle(trainer, sampler, early=early)
        if trainer is None or reason is not None:
            raise RequestError(f"{run.policy} leaves out training examples, which does not work here: {reason}.")
        self._trainer = trainer
        self._run = run
        self._sieve: DataSieve = run.sieve
        self._sampler = sampler
        self._losses = ExampleLosses(str(run.policy))
        self._batch: torch.Tensor | None = None  # numbers of the examples of the batch in progress
        patches.set(sampler, "sampler", SievedSampler(sampler.sampler, self._sieve))
        patches.replace(trainer, "_run_epoch", self._run_epoch)
        patches.replace(trainer, "training_step", self._training_step)
        patches.replace(trainer, "compute_loss", self._compute_loss)

    def _run_epoch(self, original: Callable[..., Any], **epoch: Any) -> Any:
        """Choose the examples of the epoch, and tell the Trainer how many steps they take."""
        number, size = epoch["epoch"], self._sampler.batch_size
        trained = epoch["steps_trained_in_current_epoch"] if number == epoch["epochs_trained"] else 0
        if trained:
            self._sieve.epoch, self._sieve.batches = number, trained
        else:
            self._run.begin_sieved_epoch(
                number, self._trainer.state.global_step, fewest=size if self._sampler.drop_last else 1
            )
        kept = self._sieve.kept
        batches = kept // size if self._sampler.drop_last else math.ceil(kept / size)
        steps = math.ceil(batches / self._trainer.args.gradient_accumulation_steps)
        self._run.sieved_batches = batches
        self._run.pace.set_skipping(epoch["num_update_steps_per_epoch"] / steps)
        return original(**{**epoch, "steps_in_epoch": batches, "num_update_steps_per_epoch": steps})

    def _training_step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._batch = self._sieve.next_batch(self._sampler.batch_size)
        try:
            return original(*args, **kwargs)
        finally:
            self._batch = None

    def _compute_loss(
        self,
        original: Callable[..., Any],
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Weigh the examples of the batch, and record their losses."""
        if self._batch is None:  # an evaluation
            return original(model, inputs, return_outputs, **kwargs)
        labels = inputs.get("labels")
        items = kwargs.get("num_items_in_batch") if self._trainer.current_gradient_accumulation_steps > 1 else None
        loss, outputs = original(model, inputs, True, **kwargs)
        loss, losses = self._losses.weigh(loss, outputs, labels, self._sieve.weights(self._batch), items)
        self._sieve.record(self._batch, losses)
        return (loss, outputs) if return_outputs else loss


def _obstacle(trainer: Trainer | None, sampler: Any, *, early: bool) -> str | None:
    """Why examples cannot be left out, and what to do, or None."""
    if trainer is None or not early:
        return "pass the FreezeCallback to Trainer(callbacks=[...])"
    if not hasattr(trainer, "_init_training_state"):
        return "it needs a later version of transformers"
    if trainer.args.world_size > 1 or trainer.args.n_gpu > 1:
        return "train in one process, on one device"
    if trainer.compute_loss_func is not None or trainer.label_smoother is not None:
        return "train without compute_loss_func and label smoothing, because the loss of each example is needed"
    if type(sampler) is not BatchSampler:
        return "the training data must have a length, and a sampler that draws single examples"
    if not trainer.args.dataloader_in_order:
        return "set dataloader_in_order=True, because the examples of a batch are known by their order"
    return None
