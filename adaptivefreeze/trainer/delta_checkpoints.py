"""Makes a Trainer save and load delta checkpoints, which hold the trained parameters alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from ..errors import RequestError
from ..side.delta import is_delta, load_delta, save_delta
from .hooks import Patches


def save_deltas(
    patches: Patches, trainer: Trainer, trained: Callable[[], Collection[str] | None], tower: str | None
) -> None:
    """Replace the model in the checkpoints of `trainer` by what was trained, for as long as the Trainer lives.

    Args:
        patches: Replaces the methods.
        trainer: The Trainer.
        trained: Returns the names of the parameters that have been trained so far. None for those that require a
            gradient.
        tower: The tower of the model, as in `find_blocks`.

    Raises:
        RequestError: If the Trainer shards the model.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise RequestError("save='delta' does not support FSDP or DeepSpeed: use save='full'.")

    def model() -> nn.Module:
        unwrapped: nn.Module = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        return unwrapped

    def save(original: Callable[..., None], output_dir: str | None = None, state_dict: Any = None) -> None:
        if not trainer.args.should_save:
            return
        folder = Path(output_dir or str(trainer.args.output_dir))
        save_delta(model(), folder, names=trained())
        beside: list[Any] = [getattr(model(), "config", None), trainer.processing_class]
        for part in beside:
            if part is not None:
                part.save_pretrained(folder)
        torch.save(trainer.args, folder / TRAINING_ARGS_NAME)

    def load(original: Callable[..., None], resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        if is_delta(resume_from_checkpoint):
            load_delta(model(), resume_from_checkpoint, tower=tower)
        else:
            original(resume_from_checkpoint, *args, **kwargs)

    def load_best(original: Callable[..., None]) -> None:
        best = trainer.state.best_model_checkpoint
        if best is not None and is_delta(best):
            load_delta(model(), best, tower=tower)
        else:
            original()

    patches.replace(trainer, "_save", save, permanent=True)
    patches.replace(trainer, "_load_from_checkpoint", load, permanent=True)
    patches.replace(trainer, "_load_best_model", load_best, permanent=True)
