"""GradientGuard: stops a run in which parameters that should train get no gradient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from ..errors import RequestError
from .run import FreezingRun

logger = logging.getLogger(__name__)

# A model with layer drop leaves blocks out at random, so a gradient that is missing once may come in another pass.
_REPEATS = 8


class GradientGuard:
    """Checks the first optimizer step of a run, and the first one after each change of the mask.

    A parameter that should train and has no gradient is legitimate if it has none without freezing either, such as an
    unused pooler. To find out, the last batch is run again without the cache and with the flags of the user. Nothing
    is run as long as no gradient is missing. Random states, gradients, buffers and signals are left as they were.

    Args:
        trainer: The Trainer.
        model: Its model, not wrapped.
        run: The run.
    """

    def __init__(self, trainer: Trainer, model: nn.Module, run: FreezingRun) -> None:
        self._trainer = trainer
        self._model = model
        self._run = run
        self._checked: Any = None  # the mask that has passed
        self._loss: Callable[[], Any] | None = None
        # Experts get a gradient only if a token is routed to them.
        self._legitimate = {p.name for u in run.stack.units for p in u.parameters if p.use == "expert"}
        self._warned = False

    def compute_loss(
        self, original: Callable[..., Any], model: nn.Module, inputs: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Wrap `Trainer.compute_loss`: store the batch until the mask has passed."""
        if self._checked != self._run.mask and self._model.training:
            batch = dict(inputs)  # some losses remove the labels
            self._loss = lambda: original(self._model, dict(batch), *args, **kwargs)
        return original(model, inputs, *args, **kwargs)

    def check(self) -> None:
        """Call when the gradients of a step are complete.

        Raises:
            RequestError: If gradients are missing that would be there without freezing.
        """
        if self._checked == self._run.mask:
            return
        self._checked = self._run.mask
        loss, self._loss = self._loss, None
        trainable = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        missing = {name for name, p in trainable.items() if p.grad is None} - self._legitimate
        if not missing:
            return
        reason = self._obstacle(trainable, missing)
        if loss is None or reason is not None:
            self._warn(missing, reason or "the Trainer computes no loss for them")
            return
        try:
            with self._run.without_freezing():
                lost = missing & self._names_with_gradient(loss)
            self._legitimate |= missing - lost
            for _ in range(_REPEATS):
                if lost:
                    lost -= self._names_with_gradient(loss)
        except Exception as error:  # a model or a loss of the user's own may raise anything in a second pass
            self._warn(missing, f"a second pass over the batch failed ({type(error).__name__}: {error})")
            return
        if lost:
            raise RequestError(
                f"{len(lost)} parameters that should train get no gradient while '{self._run.mask}' is in force, such "
                f"as {min(lost)}: {self._remedy()}."
            )

    def _remedy(self) -> str:
        if self._trainer.args.gradient_checkpointing:
            return "set gradient_checkpointing_kwargs={'use_reentrant': False}"
        if self._run.cached:
            return "train without the cache"
        return "choose a policy that leaves the embeddings trainable, because the model needs their gradient"

    def _obstacle(self, trainable: Mapping[str, nn.Parameter], missing: set[str]) -> str | None:
        """Why a second pass cannot be run in this process, or None."""
        if self._trainer.is_fsdp_enabled or self._trainer.is_deepspeed_enabled:
            return "the parameters are sharded"
        if len(missing) == len(trainable):
            return "the gradients of all parameters are handled elsewhere"
        if any(getattr(p, "_post_accumulate_grad_hooks", None) for p in trainable.values()):
            return "the optimizer steps during the backward pass"
        return None

    def _warn(self, missing: set[str], reason: str) -> None:
        if not self._warned:
            logger.warning(
                "%d parameters that should train have no gradient, such as %s. Whether freezing is the cause cannot be "
                "checked: %s.",
                len(missing),
                min(missing),
                reason,
            )
            self._warned = True

    def _names_with_gradient(self, loss: Callable[[], Any]) -> set[str]:
        """Run the batch forward and backward, and return the parameters that get a gradient."""
        with self._undisturbed(), self._run.unobserved(), _stand_ins(self._model, self._trainer.model_wrapped):
            with self._trainer.compute_loss_context_manager():
                value = loss()
            value = value[0] if isinstance(value, tuple) else value
            value.mean().backward()
            return {name for name, p in self._model.named_parameters() if p.grad is not None}

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Set gradients aside, and restore them, the buffers and the random states on exit."""
        gradients = [(p, p.grad) for p in self._model.parameters()]
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        cuda = sorted({p.device.index or 0 for p in self._model.parameters() if p.is_cuda})
        try:
            for parameter, _ in gradients:
                parameter.grad = None
            with torch.random.fork_rng(devices=cuda):
                yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


@contextmanager
def _stand_ins(model: nn.Module, wrapped: nn.Module) -> Iterator[None]:
    """Under DDP, let parameters that share their values stand in for those of `model`.

    DDP takes note of every parameter that gets a gradient, also in a backward pass that it does not know of, and then
    fails in the next step.
    """
    if not any(isinstance(module, DistributedDataParallel) for module in wrapped.modules()):
        yield
        return
    replaced = [(m._parameters, name, p) for m in model.modules() for name, p in m._parameters.items() if p is not None]
    stand_ins = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for _, _, p in replaced}
    try:
        for parameters, name, parameter in replaced:
            parameters[name] = stand_ins[id(parameter)]
        yield
    finally:
        for parameters, name, parameter in replaced:
            parameters[name] = parameter
