"""Bypass: run a tower from a stored hidden state on, or up to a boundary, by its own forward pass."""

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
    """Why this model cannot be bypassed: a clause that follows «the prefix cache stands aside:»."""


class _Reached(Exception):
    """The boundary was reached; what lies above it need not run."""


@dataclass
class _Run:
    """What the forward pass in progress is to do: start from `hidden` at boundary `start`, end at `stop`."""

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
    """The output of a module below the blocks: a placeholder of this shape stands in for it."""

    shape: tuple[int | str, ...]  # "batch" and "tokens" where it follows the input
    dtype: torch.dtype
    device: torch.device


class Bypass:
    """Wraps the forward passes of a tower's embeddings and blocks, until `remove`.

    A boundary `b` lies behind `b` units: 1 the embeddings, 1 + k the first k blocks. Outside `from_inputs`,
    `from_boundary` and `learn` everything runs as ever.
    """

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        self.tower = model.get_submodule(stack.tower)
        self._run: _Run | None = None
        self._stems: dict[tuple[str, tuple[tuple[int, ...], ...]], _Stem | None] = {}
        self._forms: dict[tuple[int, int], int | None] = {}  # block, module -> length of its tuple; None: a tensor
        self._calls: dict[int, int] = {}
        self._wrapped: list[nn.Module] = []
        for path in stack.units[0].modules:
            self._wrap(model.get_submodule(path), functools.partial(self._stem_forward, path))
        for index, unit in enumerate(stack.blocks):
            for position, path in enumerate(unit.modules):
                last = position == len(unit.modules) - 1
                self._wrap(model.get_submodule(path), functools.partial(self._block_forward, index, position, last))

    def remove(self) -> None:
        """Leave the model as it was."""
        for module in self._wrapped:
            del module.forward
        self._wrapped = []

    @property
    def running(self) -> bool:
        """Whether one of the passes below is in progress."""
        return self._run is not None

    def learn(self, forward: Callable[..., Any], batch: Batch) -> Any:
        """An ordinary forward pass that notes what each module below the boundary gives. Raises `Unsuitable`."""
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
        """The hidden state at boundary `stop`, from the inputs, or from the state `hidden` at boundary `start`.

        Shape (batch, tokens, hidden). Nothing above the boundary runs.
        """
        with self._running(self._prepared(batch, start, hidden, stop)) as run, suppress(_Reached):
            forward(**batch.tensors, **batch.rest)
        if run.result is None:
            raise Unsuitable(f"its forward pass never came to block {stop - 2}")
        return run.result

    def from_boundary(self, forward: Callable[..., Any], batch: Batch, start: int, hidden: torch.Tensor) -> Any:
        """What `forward` returns when it goes on from `hidden` at boundary `start`; nothing below it runs."""
        with self._running(self._prepared(batch, start, hidden, None)):
            return forward(**batch.tensors, **batch.rest)

    def knows(self, batch: Batch) -> bool:
        """Whether the shapes that the embeddings give for such a batch were seen before."""
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
        return torch.empty(shape, dtype=stem.dtype, device=stem.device)  # its shape is all that is read

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
    """What can stand in for `output`; None where it has to be computed, since later blocks may read it."""
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
        raise Unsuitable(f"block {index} gives a {type(output).__name__}, not a hidden state")
    if any(value is not None for value in output[1:]):
        raise Unsuitable(f"block {index} hands more than its hidden state to later blocks")
    return len(output)


def _first_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    raise Unsuitable("a block takes no hidden state")
