"""Stops gradients at the input embeddings while they are frozen, also under activation checkpointing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


class InputGradientStop:
    """Detaches the output of the input embeddings while the embeddings are frozen.

    Activation checkpointing in transformers calls `enable_input_require_grads` for its reentrant form, which needs an
    input that requires a gradient. The backward pass then traverses the whole frozen prefix. The non-reentrant form,
    the default, needs no such input. With the reentrant form the output is left as it is, and a warning is logged once.

    Args:
        model: The model whose input embeddings are hooked.
        frozen: Whether the embeddings are frozen at the moment.
    """

    def __init__(self, model: nn.Module, frozen: Callable[[], bool]) -> None:
        self._model = model
        self._frozen = frozen
        self._warned = False
        tables = {id(table): table for table in _input_embeddings(model)}
        self._handles: list[Any] = [table.register_forward_hook(self._embedded) for table in tables.values()]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _embedded(self, module: nn.Module, args: Any, output: Any) -> None:
        # A leaf that comes from a frozen table requires a gradient only because the transformers hook said so.
        if self._frozen() and isinstance(output, torch.Tensor) and output.is_leaf and output.requires_grad:
            if checkpoints_reentrantly(self._model):
                self._warn()
            else:
                output.requires_grad_(False)

    def _warn(self) -> None:
        if not self._warned:
            logger.warning(
                "Reentrant activation checkpointing needs gradients at the output of the embeddings, so the backward "
                "pass still traverses the frozen prefix: set gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
            self._warned = True


def _input_embeddings(model: nn.Module) -> list[nn.Module]:
    tables = []
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            try:
                table = module.get_input_embeddings()
            except NotImplementedError:  # a vision or speech model without an embedding table
                continue
            if isinstance(table, nn.Module):
                tables.append(table)
    return tables


def checkpoints_reentrantly(model: nn.Module) -> bool:
    """Return whether the reentrant form of activation checkpointing of transformers is switched on in `model`."""
    functions = (getattr(m, "_gradient_checkpointing_func", None) for m in model.modules())
    return any(getattr(f, "keywords", {}).get("use_reentrant", False) for f in functions if f is not None)
