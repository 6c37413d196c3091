"""Forms of the outputs of embeddings and blocks: what a skipped module returns in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .keys import Batch

_CONSTANTS = (bool, int, float, str)


class Unsuitable(Exception):
    """The prefix of this model or call cannot be skipped. The message is the reason, as a clause."""


@dataclass(frozen=True)
class Stem:
    """Form of the output of an embedding module.

    Attributes:
        argument: Position or name of the argument with the same first two dimensions, if there is one.
        shape: Its shape, with "batch" and "tokens" for the sizes that follow the input.
        dtype: Its dtype.
        device: Its device.
    """

    argument: int | str | None
    shape: tuple[int | str, ...]
    dtype: torch.dtype
    device: torch.device

    def placeholder(self, args: Sequence[Any], kwargs: Mapping[str, Any], batch: Batch) -> torch.Tensor:
        """Return NaN in the shape that the module would return for these arguments."""
        sizes = {"batch": batch.height, "tokens": batch.tokens or 0}
        shape = [sizes[d] if isinstance(d, str) else d for d in self.shape]
        if self.argument is not None:
            shape[:2] = (args[self.argument] if isinstance(self.argument, int) else kwargs[self.argument]).shape[:2]
        return torch.full(shape, torch.nan, dtype=self.dtype, device=self.device)


def stem_of(output: Any, args: Sequence[Any], kwargs: Mapping[str, Any], batch: Batch) -> Stem | None:
    """Return the form of an embedding module's output, or None if it has to run because no placeholder fits."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or output.dim() < 3:
        return None
    shape: tuple[int | str, ...] = ("batch", *output.shape[1:])
    if batch.tokens is None:
        return Stem(None, shape, output.dtype, output.device) if output.shape[0] == batch.height else None
    for name, value in _named(args, kwargs):
        if isinstance(value, torch.Tensor) and value.shape[:2] == output.shape[:2]:
            return Stem(name, shape, output.dtype, output.device)
    if tuple(output.shape[:2]) != (batch.height, batch.tokens):
        return None
    return Stem(None, ("batch", "tokens", *output.shape[2:]), output.dtype, output.device)


@dataclass(frozen=True)
class BlockForm:
    """Form of a block's output: a tensor, or a tuple, list or mapping with a hidden state in it.

    Attributes:
        kind: Type of the output.
        keys: Names or positions of its values.
        key: The one of the hidden state. None for a tensor.
        passed: For the values that the block received as arguments: position or name of the argument.
        constants: Values that are not tensors.
        extras: Keys of the tensors that the block computes besides its hidden state.
    """

    kind: Callable[..., Any]
    keys: tuple[Any, ...]
    key: Any
    passed: Mapping[Any, int | str]
    constants: Mapping[Any, Any]
    extras: tuple[Any, ...]

    def hidden(self, output: Any) -> torch.Tensor:
        """Return the hidden state in an output of this form."""
        hidden = output if self.key is None else output[self.key]
        if not isinstance(hidden, torch.Tensor):
            raise Unsuitable(f"a block returns a {type(hidden).__name__} where it returned a hidden state before")
        return hidden

    def output(self, hidden: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], whole: Any) -> Any:
        """Return an output of this form around `hidden`, as a skipped block does.

        Args:
            hidden: The hidden state.
            args: Positional arguments of the block.
            kwargs: Keyword arguments of the block.
            whole: An output of the block, for the tensors besides its hidden state. If None, these are None.
        """
        if self.key is None:
            return hidden
        values: dict[Any, Any] = {}
        for key in self.keys:
            if key == self.key:
                values[key] = hidden
            elif key in self.passed:
                at = self.passed[key]
                values[key] = args[at] if isinstance(at, int) else kwargs[at]
            elif key in self.extras:
                values[key] = None if whole is None else whole[key]
            else:
                values[key] = self.constants.get(key)
        return self.kind(values.values()) if self.kind in (tuple, list) else self.kind(**values)


def block_form(index: int, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> BlockForm:
    """Return the form of a block's output.

    Raises:
        Unsuitable: If there is no hidden state in it.
    """
    kind = type(output)
    if isinstance(output, torch.Tensor):
        return BlockForm(kind, (), None, {}, {}, ())
    if not (kind in (tuple, list) or isinstance(output, dict)):
        raise Unsuitable(f"block {index} returns a {kind.__name__}, not a hidden state")
    values = dict(output.items() if isinstance(output, dict) else enumerate(output))
    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    hidden = next((key for key, value in tensors.items() if value.is_floating_point()), None)
    if hidden is None:
        raise Unsuitable(f"block {index} returns no hidden state")
    received = {id(value): at for at, value in _named(args, kwargs) if value is not None}
    passed = {key: received[id(value)] for key, value in values.items() if key != hidden and id(value) in received}
    constants = {key: value for key, value in values.items() if _constant(value)}
    extras = tuple(key for key in tensors if key != hidden and key not in passed)
    return BlockForm(kind, tuple(values), hidden, passed, constants, extras)


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    """All arguments with their positions or names."""
    return [*enumerate(args), *kwargs.items()]


def _constant(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(isinstance(v, _CONSTANTS) for v in value)
    return isinstance(value, _CONSTANTS)


@dataclass(frozen=True)
class Layout:
    """Order of the dimensions of the hidden state between blocks.

    Attributes:
        order: Order of its dimensions that gives (batch, tokens, …), or None if it is in this order.
        padded: Whether the model adds columns at the right, as Longformer does.
    """

    order: tuple[int, ...] | None = None
    padded: bool = False

    def to_rows(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return `hidden`, as it is between blocks, in the shape (batch, tokens, hidden)."""
        if self.order is not None:
            hidden = hidden.permute(self.order)
        return hidden[:, : batch.tokens] if self.padded else hidden

    def to_model(self, hidden: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return `hidden`, of shape (batch, tokens, hidden), as it is between blocks.

        Args:
            hidden: The hidden state.
            like: A tensor of the width that the model uses.
        """
        if self.padded:
            hidden = nn.functional.pad(hidden, [0, 0] * (hidden.dim() - 2) + [0, like.shape[1] - hidden.shape[1]])
        if self.order is None:
            return hidden
        return hidden.permute([self.order.index(dim) for dim in range(hidden.dim())]).contiguous()


def layout_of(index: int, hidden: torch.Tensor, batch: Batch) -> Layout:
    """Return the layout of the hidden state that block `index` returns.

    Raises:
        Unsuitable: If it has no vector for each token of each example.
    """
    size, tokens, shape = batch.height, batch.tokens, tuple(hidden.shape)
    if shape[0] == size and (tokens is None or shape[1:2] == (tokens,)):
        return Layout()
    rest = tuple(range(2, len(shape)))
    if shape[1:2] == (size,) and tokens in (None, shape[0]):  # XLNet
        return Layout((1, 0, *rest))
    if len(shape) == 3 and (shape[0], shape[2]) == (size, tokens):  # SqueezeBERT
        return Layout((0, 2, 1))
    if len(shape) == 4 and shape[1:3] == (size, tokens):  # the streams of Gemma3n
        return Layout((1, 2, 0, 3))
    if len(shape) >= 2 and tokens is not None and shape[0] == size and shape[1] > tokens:
        return Layout(padded=True)
    expected = (size,) if tokens is None else (size, tokens)
    raise Unsuitable(f"block {index} returns shape {shape} for a batch of shape {expected}")


def first_hidden(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the first floating-point tensor among the arguments of a block.

    Raises:
        Unsuitable: If there is none.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    raise Unsuitable("a block takes no hidden state")
