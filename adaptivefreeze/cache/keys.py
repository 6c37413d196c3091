"""Keys of examples: 128-bit digests of their unpadded inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch

from ..model.fingerprint import update_digest
from .transfer import HOST_COPIES, index_on, rows_on

MASK = "attention_mask"
POSITIONS = "position_ids"
# Arguments for attention kernels that say where the examples in a row of packed ones begin and end.
PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
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
        spans: Where each example is if they are packed, one after the other, into one row. The tensors then have a
            first dimension of 1.
        packing: The arguments that repeat `spans`. They have no part in the keys.
        deepest: The boundary of the lowest hidden state that the call requests, or None. A deeper one would skip it.
    """

    tensors: Mapping[str, torch.Tensor]
    rest: Mapping[str, object]
    keys: tuple[bytes, ...]
    real: tuple[slice | torch.Tensor, ...] | None
    tokens: int | None
    loss: Mapping[str, object] = field(default_factory=dict)
    spans: tuple[slice, ...] | None = None
    packing: Mapping[str, object] = field(default_factory=dict)
    deepest: int | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.keys)

    @property
    def height(self) -> int:
        """First dimension of the tensors: 1 if the examples are packed, else their number."""
        return self.size if self.spans is None else 1

    @property
    def padded(self) -> bool:
        """Whether the batch contains padding."""
        whole = slice(0, self.tokens)
        return self.real is not None and any(not isinstance(at, slice) or at != whole for at in self.real)

    def arguments(self) -> dict[str, object]:
        """Return the keyword arguments of the forward pass. Tensors named `outer/inner` form the mapping `outer`."""
        arguments: dict[str, Any] = {**self.rest, **self.packing}
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
        keys = tuple(self.keys[i] for i in rows)
        if self.spans is not None:
            chosen = [self.spans[i] for i in rows]
            tensors = {
                name: torch.cat([t[:, at] for at in chosen], 1) if t.shape[1:2] == (self.tokens,) else t
                for name, t in self.tensors.items()
            }
            spans = _consecutive([at.stop - at.start for at in chosen])
            packing = _packing(self.packing, spans)
            return Batch(tensors, self.rest, keys, None, spans[-1].stop, spans=spans, packing=packing)
        index = torch.tensor(rows)
        tensors = {name: t[index.to(t.device)] for name, t in self.tensors.items()}
        real = None if self.real is None else tuple(self.real[i] for i in rows)
        return Batch(tensors, self.rest, keys, real, self.tokens, packing=self.packing)

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
        return Batch(tensors, one.rest, one.keys, one.real, tokens, packing=one.packing)

    def row(self, hidden: torch.Tensor, index: int) -> torch.Tensor:
        """Return the row of the example at `index`, (tokens, …), from a hidden state of this batch, without padding."""
        if self.spans is not None:
            return hidden[0, self.spans[index]]
        if self.real is None:
            return hidden[index]
        at = self.real[index]
        return hidden[index, at if isinstance(at, slice) else index_on(hidden.device, at)]

    def assemble(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine rows into a hidden state.

        Args:
            rows: One row for each example, of shape (tokens, …), without padding.

        Returns:
            A tensor of shape (batch, tokens, …) on the device of the inputs, with zeros at padding.
        """
        device = next(iter(self.tensors.values())).device
        rows = rows_on(device, rows)
        if self.spans is not None:
            return torch.cat(rows)[None]
        if self.real is None or self.tokens is None or not self.padded:
            return torch.stack(rows)
        hidden = torch.zeros((self.size, self.tokens, *rows[0].shape[1:]), dtype=rows[0].dtype, device=device)
        for index, (at, row) in enumerate(zip(self.real, rows, strict=True)):
            if isinstance(at, slice):
                hidden[index, at].copy_(row)
            else:
                hidden[index].index_copy_(0, index_on(device, at), row)
        return hidden


def read_batch(
    tensors: Mapping[str, torch.Tensor],
    rest: Mapping[str, object],
    salt: bytes,
    *,
    with_padding: bool = False,
    packing: Mapping[str, object] | None = None,
) -> Batch:
    """Compute the keys and the unpadded positions of the examples in a batch.

    Padding is where an attention mask of shape (batch, tokens) is zero. It is not part of the key, so an example has
    the same key in a batch of another width. Examples that are packed into one row, without a mask, begin where the
    position is 0.

    Args:
        tensors: Inputs by name, each of shape (batch, …).
        rest: The other arguments by name.
        salt: Distinguishes conditions under which the same content has different outputs, such as autocast.
        with_padding: Whether padding is part of an example, for models whose output for a token depends on it.
            A row of packed examples is then one example.
        packing: The arguments of `PACKING`.

    Raises:
        ValueError: If the tensors have different batch sizes.
    """
    sizes = {t.shape[0] if t.dim() else 0 for t in tensors.values()}
    if len(sizes) != 1:
        raise ValueError("its inputs have no common batch dimension")
    packing = packing or {}
    mask = tensors.get(MASK)
    ids = tensors.get("input_ids")
    on_host = {name: HOST_COPIES.read(t) for name, t in sorted(tensors.items())}
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
        spans = _packed_spans(on_host.get(POSITIONS), tokens)
        if spans is not None:
            keys = [_packed_key(on_host, at, tokens, salt) for at in spans]
            return Batch(dict(tensors), dict(rest), tuple(keys), None, tokens, spans=spans, packing=packing)
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
    found = None if real is None else tuple(real)
    return Batch(dict(tensors), dict(rest), tuple(keys), found, tokens, packing=packing)


def _packed_spans(positions: torch.Tensor | None, tokens: int) -> tuple[slice, ...] | None:
    """The spans of the examples in one row, or None if there is one example, or several rows."""
    if positions is None or positions.shape != (1, tokens):
        return None
    starts = (positions[0] == 0).nonzero().reshape(-1).tolist()
    if len(starts) < 2 or starts[0] != 0:
        return None
    return tuple(slice(begin, end) for begin, end in pairwise([*starts, tokens]))


def _packed_key(tensors: Mapping[str, torch.Tensor], at: slice, tokens: int, salt: bytes) -> bytes:
    digest = hashlib.blake2b(salt + b" packed", digest_size=16)
    for name, tensor in tensors.items():
        value = tensor[0, at] if tensor.shape[1:2] == (tokens,) else tensor[0]
        update_digest(digest, f"{name}{value.dtype}{tuple(value.shape)}", value)
    return digest.digest()


def _consecutive(lengths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(begin, end) for begin, end in pairwise(accumulate(lengths, initial=0)))


def _packing(given: Mapping[str, object], spans: Sequence[slice]) -> dict[str, object]:
    """The arguments `given`, for other spans."""
    lengths = torch.tensor([at.stop - at.start for at in spans])
    ends = torch.tensor([0, *(at.stop for at in spans)])
    index = torch.repeat_interleave(torch.arange(len(spans)), lengths)[None]
    changed: dict[str, object] = {}
    for name, value in given.items():
        if name.startswith("max_length"):
            changed[name] = int(lengths.max())
        elif isinstance(value, torch.Tensor):
            changed[name] = (index if name == "seq_idx" else ends).to(value)
    return changed


def _real_positions(mask: torch.Tensor) -> slice | torch.Tensor:
    positions = mask.nonzero().reshape(-1)
    count = len(positions)
    if not count:
        return slice(0, 0)
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == count else positions
