"""Runs part of a tower with its own forward pass: up to a boundary, or from a stored hidden state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from .keys import Batch


class Unsuitable(Exception):
    """The prefix of this model or call cannot be skipped. The message is the reason, as a clause."""


class _Reached(Exception):
    """The boundary was reached, so the rest of the forward pass is not needed."""


@dataclass
class _Run:
    """The current forward pass: start from `hidden` at boundary `start`, end at boundary `stop`."""

    start: int = 0
    hidden: torch.Tensor | None = None
    stop: int | None = None
    batch: int = 0
    tokens: int | None = None
    signature: tuple[tuple[int, ...], ...] = ()
    learning: bool = False
    result: torch.Tensor | None = None
    calls: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stem:
    """Shape of the output of an embedding module, for a placeholder."""

    shape: tuple[int | str, ...]  # "batch" and "tokens" for sizes that follow the input
    dtype: torch.dtype
    device: torch.device


class Bypass:
    """Wraps the forward passes of a tower's embeddings and blocks, until `remove`.

    A boundary is the number of units below it: 1 for the embeddings, 1 + k for the embeddings and the first k blocks.
    Outside of `from_inputs`, `from_boundary` and `learn`, the wrapped modules run as before.

    Args:
        model: The model.
        stack: Its units.
    """

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        self.tower = model.get_submodule(stack.tower)
        self._run: _Run | None = None
        self._stems: dict[tuple[str, tuple[tuple[int, ...], ...]], _Stem | None] = {}
        self._forms: dict[tuple[int, int], int | None] = {}  # (block, module) -> length of its tuple; None: tensor
        self._calls: dict[int, int] = {}
        self._wrapped: list[nn.Module] = []
        for path in stack.units[0].modules:
            self._wrap(model.get_submodule(path), functools.partial(self._stem_forward, path))
        for index, unit in enumerate(stack.blocks):
            for position, path in enumerate(unit.modules):
                last = position == len(unit.modules) - 1
                self._wrap(model.get_submodule(path), functools.partial(self._block_forward, index, position, last))

    def remove(self) -> None:
        """Restore the forward passes of the model."""
        for module in self._wrapped:
            del module.forward
        self._wrapped = []

    @property
    def running(self) -> bool:
        """Whether a pass of this bypass is in progress."""
        return self._run is not None

    def learn(self, forward: Callable[..., Any], batch: Batch) -> Any:
        """Run the whole forward pass, and record the form of each module's output.

        Raises:
            Unsuitable: If a block returns more than a hidden state.
        """
        with self._running(
            _Run(learning=True, batch=batch.size, tokens=batch.tokens, signature=_signature(batch))
        ) as run:
            output = forward(**batch.tensors, **batch.rest)
        self._calls = dict(run.calls)
        return output

    def from_inputs(
        self,
        forward: Callable[..., Any],
        batch: Batch,
        stop: int,
        *,
        start: int = 0,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the units below boundary `stop`.

        Args:
            forward: The tower's forward pass.
            batch: The inputs.
            stop: Boundary to stop at.
            start: Boundary to start from; 0 for the inputs.
            hidden: Hidden state at boundary `start`.

        Returns:
            The hidden state at boundary `stop`, of shape (batch, tokens, hidden).

        Raises:
            Unsuitable: If the forward pass does not reach the boundary.
        """
        with self._running(self._prepared(batch, start, hidden, stop)) as run, suppress(_Reached):
            forward(**batch.tensors, **batch.rest)
        if run.result is None:
            raise Unsuitable(f"its forward pass does not reach block {stop - 2}")
        return run.result

    def from_boundary(self, forward: Callable[..., Any], batch: Batch, start: int, hidden: torch.Tensor) -> Any:
        """Run `forward` from `hidden` at boundary `start`, without the units below it, and return its output."""
        with self._running(self._prepared(batch, start, hidden, None)):
            return forward(**batch.tensors, **batch.rest)

    def knows(self, batch: Batch) -> bool:
        """Whether the shapes of the embeddings' outputs are known for such a batch."""
        return batch.tokens is not None or any(key[1] == _signature(batch) for key in self._stems)

    def _prepared(self, batch: Batch, start: int, hidden: torch.Tensor | None, stop: int | None) -> _Run:
        return _Run(start, hidden, stop, batch.size, batch.tokens, _signature(batch))

    @contextmanager
    def _running(self, run: _Run) -> Iterator[_Run]:
        self._run = run
        try:
            yield run
        finally:
            self._run = None

    def _wrap(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        original = module.forward
        module.forward = functools.update_wrapper(functools.partial(forward, original), original)
        self._wrapped.append(module)

    def _stem_forward(self, path: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        run = self._run
        if run is None:
            return original(*args, **kwargs)
        key = (path, () if run.tokens is not None else run.signature)
        if run.learning:
            output = original(*args, **kwargs)
            self._stems[key] = _stem(output, run)
            return output
        stem = self._stems.get(key) if run.start else None
        if stem is None:
            return original(*args, **kwargs)
        sizes = {"batch": run.batch, "tokens": run.tokens or 0}
        shape = [sizes[d] if isinstance(d, str) else d for d in stem.shape]
        return torch.empty(shape, dtype=stem.dtype, device=stem.device)  # only its shape is read

    def _block_forward(
        self, index: int, position: int, last: bool, original: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        run = self._run
        if run is None:
            return original(*args, **kwargs)
        if last:
            run.calls[index] = run.calls.get(index, 0) + 1
        unit = index + 1
        if unit < run.start:
            at_boundary = last and unit == run.start - 1
            hidden = run.hidden if at_boundary else _first_hidden(args, kwargs)
            length = self._forms[index, position]
            return hidden if length is None else (hidden, *[None] * (length - 1))
        output = original(*args, **kwargs)
        if run.learning:
            self._forms[index, position] = _form(index, output)
        if last and run.stop == unit + 1 and run.calls[index] == self._calls.get(index, 1):
            run.result = output[0] if isinstance(output, tuple) else output
            raise _Reached
        return output


def _signature(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(t.shape[1:]) for _, t in sorted(batch.tensors.items()))


def _stem(output: Any, run: _Run) -> _Stem | None:
    """The placeholder for `output`, or None if it must be computed because later blocks may read it."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or output.dim() < 3:
        return None
    if output.shape[0] != run.batch or (run.tokens is not None and output.shape[1] != run.tokens):
        return None
    shape: list[int | str] = ["batch", *output.shape[1:]]
    if run.tokens is not None:
        shape[1] = "tokens"
    return _Stem(tuple(shape), output.dtype, output.device)


def _form(index: int, output: Any) -> int | None:
    if isinstance(output, torch.Tensor):
        return None
    if not isinstance(output, tuple) or not isinstance(output[0], torch.Tensor):
        raise Unsuitable(f"block {index} returns a {type(output).__name__}, not a hidden state")
    if any(value is not None for value in output[1:]):
        raise Unsuitable(f"block {index} passes more than its hidden state to later blocks")
    return len(output)


def _first_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    raise Unsuitable("a block takes no hidden state")
