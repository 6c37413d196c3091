"""Keys of examples: 128-bit digests of their unpadded inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..model.fingerprint import update_digest

MASK = "attention_mask"
NESTED = "/"  # between the name of a mapping and that of a tensor in it


@dataclass(frozen=True)
class Batch:
    """The inputs of one forward pass of a tower, with a key for each example.

    Attributes:
        tensors: Inputs by name. The first dimension of each is the batch.
        rest: The other arguments by name.
        keys: The key of each example, 16 bytes.
        real: The positions of each example that are not padding, as a slice if they are contiguous. None if the inputs
            are not sequences of tokens.
        tokens: Width of the batch in tokens. None if the inputs are not sequences of tokens.
        loss: Arguments that only the loss uses. They have no part in the keys.
    """

    tensors: Mapping[str, torch.Tensor]
    rest: Mapping[str, object]
    keys: tuple[bytes, ...]
    real: tuple[slice | torch.Tensor, ...] | None
    tokens: int | None
    loss: Mapping[str, object] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.keys)

    @property
    def padded(self) -> bool:
        """Whether the batch contains padding."""
        whole = slice(0, self.tokens)
        return self.real is not None and any(not isinstance(at, slice) or at != whole for at in self.real)

    def arguments(self) -> dict[str, object]:
        """Return the keyword arguments of the forward pass. Tensors named `outer/inner` form the mapping `outer`."""
        arguments: dict[str, Any] = dict(self.rest)
        for name, tensor in self.tensors.items():
            outer, separator, inner = name.partition(NESTED)
            if separator:
                arguments.setdefault(outer, {})[inner] = tensor
            else:
                arguments[name] = tensor
        return arguments

    def select(self, rows: Sequence[int]) -> Batch:
        """Return a batch of the examples at the indices `rows`, of the same width."""
        if len(rows) == self.size:
            return self
        index = torch.tensor(rows)
        tensors = {name: t[index.to(t.device)] for name, t in self.tensors.items()}
        real = None if self.real is None else tuple(self.real[i] for i in rows)
        return Batch(tensors, self.rest, tuple(self.keys[i] for i in rows), real, self.tokens)

    def alone(self, row: int) -> Batch:
        """Return a batch of the example at index `row` alone, without the padding after it."""
        one = self.select([row])
        if one.real is None or one.tokens is None:
            return one
        at = one.real[0]
        tokens = max(1, at.stop if isinstance(at, slice) else int(at[-1]) + 1)
        tensors = {
            name: t[:, :tokens] if t.dim() >= 2 and t.shape[1] == one.tokens else t for name, t in one.tensors.items()
        }
        return Batch(tensors, one.rest, one.keys, one.real, tokens)

    def assemble(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine rows into a hidden state.

        Args:
            rows: One row for each example, of shape (tokens, …), without padding.

        Returns:
            A tensor of shape (batch, tokens, …) on the device of the inputs, with zeros at padding.
        """
        device = next(iter(self.tensors.values())).device
        if self.real is None or self.tokens is None:
            return torch.stack([row.to(device, non_blocking=True) for row in rows])
        hidden = torch.zeros((self.size, self.tokens, *rows[0].shape[1:]), dtype=rows[0].dtype, device=device)
        for index, (at, row) in enumerate(zip(self.real, rows, strict=True)):
            if isinstance(at, slice):
                hidden[index, at].copy_(row, non_blocking=True)
            else:
                hidden[index, at] = row.to(device, non_blocking=True)
        return hidden


def read_batch(
    tensors: Mapping[str, torch.Tensor], rest: Mapping[str, object], salt: bytes, *, with_padding: bool = False
) -> Batch:
    """Compute the keys and the unpadded positions of the examples in a batch.

    Padding is where an attention mask of shape (batch, tokens) is zero. It is not part of the key, so an example has
    the same key in a batch of another width.

    Args:
        tensors: Inputs by name, each of shape (batch, …).
        rest: The other arguments by name.
        salt: Distinguishes conditions under which the same content has different outputs, such as autocast.
        with_padding: Whether padding is part of an example, for models whose output for a token depends on it.

    Raises:
        ValueError: If the tensors have different batch sizes.
    """
    sizes = {t.shape[0] if t.dim() else 0 for t in tensors.values()}
    if len(sizes) != 1:
        raise ValueError("its inputs have no common batch dimension")
    mask = tensors.get(MASK)
    ids = tensors.get("input_ids")
    on_host = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
    real: list[slice | torch.Tensor] | None = None
    tokens: int | None = None
    widths = {name: t for name, t in on_host.items() if t.dim() >= 2}
    if with_padding:
        salt += b" with padding"
    elif mask is not None and mask.dim() == 2:
        tokens = int(mask.shape[1])
        real = [_real_positions(row) for row in on_host[MASK].to(torch.bool)]
    elif mask is None and ids is not None and ids.dim() == 2:
        tokens = int(ids.shape[1])
        real = [slice(0, tokens)] * int(ids.shape[0])
    keys = []
    for row in range(sizes.pop()):
        digest = hashlib.blake2b(salt, digest_size=16)
        positions = real[row] if real is not None else slice(None)
        for name, tensor in on_host.items():
            value = tensor[row]
            if name == MASK and real is not None:
                if isinstance(positions, slice) and positions.start == 0:
                    continue  # the lengths of the other inputs imply it
                value = torch.arange(tokens or 0)[positions]
            elif name in widths and tensor.shape[1] == tokens:
                value = value[positions]
            update_digest(digest, f"{name}{value.dtype}{tuple(value.shape)}", value)
        keys.append(digest.digest())
    return Batch(dict(tensors), dict(rest), tuple(keys), None if real is None else tuple(real), tokens)


def _real_positions(mask: torch.Tensor) -> slice | torch.Tensor:
    positions = mask.nonzero().reshape(-1)
    count = len(positions)
    if not count:
        return slice(0, 0)
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == count else positions
