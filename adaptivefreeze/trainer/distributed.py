"""Training on several processes: what a callback has to do before the Trainer wraps the model, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from ..errors import RequestError
from ..model.input_gradients import checkpoints_reentrantly
from .hooks import Patches


def before_wrapping(
    patches: Patches,
    trainer: Trainer,
    *,
    sharding: Callable[[nn.Module], None],
    replicating: Callable[[nn.Module], None],
) -> None:
    """Prepare every later training of `trainer`, just before its model is wrapped for several processes.

    If FSDP is about to shard the model, `sharding` is called with it; if DDP is about to replicate it, `replicating`.
    DDP then searches for unused parameters, unless `ddp_find_unused_parameters` is set: the Trainer turns the search
    off under activation checkpointing, and DDP would wait for the gradients of frozen parameters.

    The Trainer has no event for that. It has just created its optimizer at this point.
    """

    def create_optimizer(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        optimizer = original(*args, **kwargs)
        handler = trainer.accelerator.ddp_handler
        if handler is not None and trainer.args.ddp_find_unused_parameters is None:
            handler.find_unused_parameters = True
        if trainer.model is not None and trainer.is_fsdp_enabled:
            sharding(trainer.model)
        elif trainer.model is not None and handler is not None and not trainer.is_deepspeed_enabled:
            replicating(trainer.model)
        return optimizer

    patches.replace(trainer, "create_optimizer", create_optimizer, permanent=True)


class ClearedFlags:
    """Flags of parameters that are cleared while the Trainer prepares a training, and set again when it begins.

    - DDP reduces the gradients of those parameters alone that require one when it wraps the model.
    - FSDP2 refuses a checkpoint that lacks the optimizer state of a parameter that requires a gradient. The optimizer
      holds no state for frozen parameters.

    Attributes:
        names: The names of the parameters whose flags were cleared last.
    """

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._cleared = False

    def clear(self, model: nn.Module, names: Iterable[str]) -> None:
        """Clear the flags of the parameters named, where they are set."""
        parameters = dict(model.named_parameters())
        self.names = frozenset(name for name in names if name in parameters and parameters[name].requires_grad)
        self._cleared = True
        for name in self.names:
            parameters[name].requires_grad_(False)

    def restore(self, model: nn.Module) -> None:
        """Set the flags again. Does nothing when they are set."""
        if self._cleared:
            parameters = dict(model.named_parameters())
            for name in self.names:
                parameters[name].requires_grad_(True)
        self._cleared = False


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


def refuse_ddp(trainer: Trainer, model: nn.Module, *, moves: bool, waits: bool) -> None:
    """Raise `RequestError` if the model is wrapped by a DDP that does not allow parameters to be frozen.

    Args:
        trainer: The Trainer.
        model: The model inside of the wrapper.
        moves: Whether the mask may change during training.
        waits: Whether a parameter is frozen, or may become so, whose gradients DDP reduces.
    """
    ddp = wrapped_by_ddp(trainer)
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
    if waits and not ddp.find_unused_parameters and not ddp.static_graph:
        raise RequestError(
            "DDP waits for the gradient of every parameter, and frozen ones have none: set "
            "ddp_find_unused_parameters=True."
        )


def refuse_unreduced(names: Collection[str]) -> None:
    """Raise `RequestError` if there are `names`, of parameters that would train and whose gradients DDP ignores."""
    if names:
        raise RequestError(
            f"DDP does not exchange the gradients of {len(names)} parameters, such as {min(names)}, because a static "
            "policy had frozen them when training began: use an adaptive policy to unfreeze blocks."
        )


def wrapped_by_ddp(trainer: Trainer) -> DistributedDataParallel | None:
    """Return the DDP around the model of `trainer`, if there is one."""
    wrapped: Any = trainer.model_wrapped
    return next((m for m in wrapped.modules() if isinstance(m, DistributedDataParallel)), None)
