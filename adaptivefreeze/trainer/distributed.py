"""Training on several processes: what a callback has to do before the Trainer wraps the model, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.input_gradients import checkpoints_reentrantly
from ..model.sharding import is_sharded, reshard
from ..model.timeline import Timeline
from ..policies import Policy
from .checkpoint import SavedRun
from .hooks import Patches, resumed_checkpoint
from .towers import blocks_for


class Wrapping:
    """Prepares a model before the Trainer wraps it for several processes.

    - DDP reduces the gradients of those parameters alone that require one when it wraps the model. The flags of what a
      static policy freezes are cleared until then, so that DDP has no buckets for it.
    - FSDP2 refuses a checkpoint that lacks the optimizer state of a parameter that requires a gradient. The optimizer
      holds no state for frozen parameters, so their flags are cleared as well. A sharded tower cannot run on its own:
      its blocks are found before.

    Args:
        policy: Returns the policy of the training.
        tower: The tower to freeze, as in `FreezeCallback`.
    """

    def __init__(self, policy: Callable[[], Policy], tower: str | None) -> None:
        self._policy = policy
        self._tower = tower
        self._stacks: WeakKeyDictionary[nn.Module, BlockStack] = WeakKeyDictionary()
        self._cleared: frozenset[str] = frozenset()
        self._unreduced: frozenset[str] = frozenset()

    def prepare(self, patches: Patches, trainer: Trainer) -> None:
        """Prepare every later training of `trainer`, just before its model is wrapped.

        DDP then also searches for unused parameters, unless `ddp_find_unused_parameters` is set: the Trainer turns the
        search off under activation checkpointing, and DDP would wait for the gradients of frozen parameters.

        The Trainer has no event for that. It has just created its optimizer at this point.
        """

        def create_optimizer(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            optimizer = original(*args, **kwargs)
            handler = trainer.accelerator.ddp_handler
            if handler is not None and trainer.args.ddp_find_unused_parameters is None:
                handler.find_unused_parameters = True
            if trainer.model is not None and trainer.is_fsdp_enabled:
                self._before_fsdp(trainer.model)
            elif trainer.model is not None and trainer.accelerator.use_distributed and not trainer.is_deepspeed_enabled:
                self._before_ddp(trainer.model)
            return optimizer

        patches.replace(trainer, "create_optimizer", create_optimizer, permanent=True)

    def find_blocks(self, model: nn.Module) -> BlockStack:
        """Return the units of a model, which may be sharded by now.

        Raises:
            RequestError: As `find_blocks`, also if the model was sharded before the callback knew of it.
        """
        if not is_sharded(model):
            return blocks_for(model, self._tower, self._policy())
        if model not in self._stacks:
            raise RequestError(
                "the blocks of a model cannot be found once it is sharded: pass the FreezeCallback to "
                "Trainer(callbacks=[...]), and let the Trainer shard the model."
            )
        reshard(model)  # after an evaluation some parameters are whole
        return self._stacks[model]

    def restore_flags(self, model: nn.Module) -> None:
        """Set the flags again that were cleared before the model was wrapped."""
        names, self._cleared = self._cleared, frozenset()
        if names:
            parameters = dict(model.named_parameters())
            for name in names:
                parameters[name].requires_grad_(True)

    def check(self, trainer: Trainer | None, model: nn.Module, frozen: Collection[str], *, moves: bool) -> None:
        """Raise `RequestError` if the model is wrapped by a DDP that does not allow this mask.

        Args:
            trainer: The Trainer.
            model: The model inside of the wrapper.
            frozen: The names of the parameters that are frozen now.
            moves: Whether the mask may change during training.
        """
        unreduced = self._unreduced.difference(frozen)
        if unreduced:
            raise RequestError(
                f"DDP does not exchange the gradients of {len(unreduced)} parameters, such as {min(unreduced)}, "
                "because a static policy froze them when training began: use an adaptive policy to unfreeze blocks."
            )
        if trainer is not None and (moves or frozen):
            refuse_ddp(trainer, model, moves=moves, waits=moves or not self._unreduced.issuperset(frozen))

    def _before_fsdp(self, model: nn.Module) -> None:
        self._unreduced = frozenset()
        if not is_sharded(model):
            self._stacks[model] = blocks_for(model, self._tower, self._policy())
        saved = _resumed()
        self._clear(model, () if saved is None else saved.without_state)

    def _before_ddp(self, model: nn.Module) -> None:
        self._unreduced = frozenset()
        policy = self._policy()
        if policy.is_static:
            stack, saved = blocks_for(model, self._tower, policy), _resumed()
            mask = policy.initial_mask(stack)
            if saved is not None and saved.is_of(policy):
                mask = Timeline.from_json(saved.timeline)[-1].mask
            self._unreduced = stack.frozen(mask)
        self._clear(model, self._unreduced)

    def _clear(self, model: nn.Module, names: Iterable[str]) -> None:
        parameters = dict(model.named_parameters())
        self._cleared = frozenset(name for name in names if name in parameters and parameters[name].requires_grad)
        for name in self._cleared:
            parameters[name].requires_grad_(False)


def _resumed() -> SavedRun | None:
    checkpoint = resumed_checkpoint()
    return None if checkpoint is None else SavedRun.load(checkpoint)


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


def wrapped_by_ddp(trainer: Trainer) -> DistributedDataParallel | None:
    """Return the DDP around the model of `trainer`, if there is one."""
    wrapped: Any = trainer.model_wrapped
    return next((m for m in wrapped.modules() if isinstance(m, DistributedDataParallel)), None)
