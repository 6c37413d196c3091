"""Checks on the first batch that the blocks of a model run in the order found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import RequestError
from .blocks import BlockStack


class OrderCheck:
    """Checks the order of the blocks during the first forward pass, then removes itself.

    The forward pass raises `RequestError` when a block runs after a later one, before any weight is updated.
    """

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        self._name = stack.model_name
        self._depth = stack.depth
        self._seen: list[int] = []
        self._handles: list[Any] = [model.register_forward_hook(self._model_finished)]
        for index, unit in enumerate(stack.blocks):
            for path in unit.modules:
                module = model.get_submodule(path)
                self._handles.append(module.register_forward_pre_hook(self._block_entered(index)))
        for path in stack.units[0].modules:
            self._handles.append(model.get_submodule(path).register_forward_pre_hook(self._embeddings_entered))
        last = model.get_submodule(stack.blocks[-1].modules[-1])
        self._handles.append(last.register_forward_hook(self._last_block_finished))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _block_entered(self, index: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            last = self._seen[-1] if self._seen else index
            if index < last:
                self._seen = []  # the next forward pass is checked from its beginning
                raise RequestError(
                    f"{self._name} ran block {index} after block {last}: its blocks do not run one after the "
                    "other in the order found, so it cannot be frozen by depth."
                )
            self._seen.append(index)

        return hook

    def _embeddings_entered(self, *_: Any) -> None:
        self._seen = []  # the cache runs the embeddings and blocks several times in its own check

    def _last_block_finished(self, *_: Any) -> None:
        if len(set(self._seen)) == self._depth:
            self.remove()

    def _model_finished(self, *_: Any) -> None:
        self.remove()  # layer drop may have skipped a block
