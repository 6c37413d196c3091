"""Training on several processes: what a callback has to do before the Trainer wraps the model, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from ..errors import RequestError
from ..model.input_gradients import checkpoints_reentrantly
from .checkpoint import SavedRun
from .hooks import Patches


def before_wrapping(patches: Patches, trainer: Trainer, sharding: Callable[[nn.Module], None]) -> None:
    """Prepare every later training of `trainer`, just before its model is wrapped for several processes.

    DDP then searches for unused parameters, unless `ddp_find_unused_parameters` is set: the Trainer turns the search
    off under activation checkpointing, and DDP would wait for the gradients of frozen parameters. If FSDP is about to
    shard the model, `sharding` is called with it.

    The Trainer has no event for that. It has just created its optimizer at this point.
    """

    def create_optimizer(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        optimizer = original(*args, **kwargs)
        handler = trainer.accelerator.ddp_handler
        if handler is not None and trainer.args.ddp_find_unused_parameters is None:
            handler.find_unused_parameters = True
        if trainer.is_fsdp_enabled and trainer.model is not None:
            sharding(trainer.model)
        return optimizer

    patches.replace(trainer, "create_optimizer", create_optimizer, permanent=True)


class LoadingFlags:
    """Flags of parameters while FSDP2 loads the optimizer state of a checkpoint.

    FSDP2 refuses a checkpoint that lacks the state of a parameter that requires a gradient. The optimizer holds no
    state for frozen parameters.
    """

    def __init__(self) -> None:
        self._names: list[str] = []

    def set(self, model: nn.Module, checkpoint: Path) -> None:
        """Clear the flags of the parameters for which `checkpoint` holds no optimizer state."""
        saved = SavedRun.load(checkpoint)
        parameters = dict(model.named_parameters())
        without_state = [] if saved is None else saved.without_state
        self._names = [name for name in without_state if name in parameters and parameters[name].requires_grad]
        for name in self._names:
            parameters[name].requires_grad_(False)

    def restore(self, model: nn.Module) -> None:
        """Set the flags again."""
        parameters = dict(model.named_parameters())
        for name in self._names:
            parameters[name].requires_grad_(True)
        self._names = []


def refuse_sharding(trainer: Trainer) -> None:
    """Raise `RequestError` for a way of sharding under which parameters cannot be frozen one by one.

    FSDP1 merges the parameters of a module into one, and ZeRO-3 replaces them by empty ones outside of their use.
    """
    state = trainer.accelerator.state
    fsdp, deepspeed = getattr(state, "fsdp_plugin", None), getattr(state, "deepspeed_plugin", None)
    if fsdp is not None and fsdp.fsdp_version == 1:
        raise RequestError(
            "FSDP1 is not supported, because it merges the parameters of a module into one"
            + ("" if fsdp.use_orig_params else " (use_orig_params is False)")
            + ": set fsdp_config={'version': 2}."
        )
    if deepspeed is not None and deepspeed.zero_stage == 3:
        raise RequestError(
            "DeepSpeed ZeRO-3 is not supported, because it replaces the parameters of the model by empty ones: use "
            "FSDP2 (fsdp_config={'version': 2}), or ZeRO stage 1 or 2."
        )


def refuse_ddp(trainer: Trainer, model: nn.Module, *, moves: bool) -> None:
    """Raise `RequestError` if the model is wrapped by a DDP that does not allow parameters to be frozen.

    Args:
        trainer: The Trainer.
        model: The model inside of the wrapper.
        moves: Whether the mask may change during training.
    """
    wrapped: Any = trainer.model_wrapped
    ddp = next((m for m in wrapped.modules() if isinstance(m, DistributedDataParallel)), None)
    if ddp is None:
        return
    if checkpoints_reentrantly(model):
        raise RequestError(
            "reentrant activation checkpointing does not work with DDP and frozen parameters: set "
            "gradient_checkpointing_kwargs={'use_reentrant': False}."
        )
    if ddp.static_graph and moves:
        raise RequestError(
            "DDP with a static graph requires that the same parameters train in every step: unset ddp_static_graph."
        )
    if not ddp.find_unused_parameters and not ddp.static_graph:
        raise RequestError(
            "DDP waits for the gradient of every parameter, and frozen ones have none: set "
            "ddp_find_unused_parameters=True."
        )
