"""Keys: an example is known by the content of its unpadded inputs, 128 bits, wherever and whenever it comes again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..model.fingerprint import update_digest

MASK = "attention_mask"


@dataclass(frozen=True)
class Batch:
    """The inputs of one forward pass of a tower, and what tells its examples apart.

    `tensors`: name -> tensor whose first dimension is the batch. `rest`: the other arguments. `keys`: 16 bytes an
    example. `real`: for each example its real positions, a slice where they are contiguous; None where nothing is
    padded, because the input is no row of tokens.
    """

    tensors: Mapping[str, torch.Tensor]
    rest: Mapping[str, object]
    keys: tuple[bytes, ...]
    real: tuple[slice | torch.Tensor, ...] | None
    tokens: int | None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.keys)

    @property
    def padded(self) -> bool:
        """Whether some example is shorter than the batch is wide."""
        whole = slice(0, self.tokens)
        return self.real is not None and any(not isinstance(at, slice) or at != whole for at in self.real)

    def select(self, rows: Sequence[int]) -> Batch:
        """The batch of these examples alone, as wide as before."""
        if len(rows) == self.size:
            return self
        index = torch.tensor(rows)
        tensors = {name: t[index.to(t.device)] for name, t in self.tensors.items()}
        real = None if self.real is None else tuple(self.real[i] for i in rows)
        return Batch(tensors, self.rest, tuple(self.keys[i] for i in rows), real, self.tokens)

    def assemble(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Rows of shape (tokens, …), one an example -> (batch, tokens, …) on the inputs' device, zeros at padding."""
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


def read_batch(tensors: Mapping[str, torch.Tensor], rest: Mapping[str, object], salt: bytes) -> Batch:
    """Keys and real positions of the examples in `tensors`, each of shape (batch, …).

    Padding is what the attention mask of shape (batch, tokens) leaves out; it takes no part in the key, so an example
    is known again in a batch of another width. `salt` keeps apart what one content may give, as under autocast.
    Raises `ValueError` when the tensors are not of one batch size.
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
    if mask is not None and mask.dim() == 2:
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
                    continue  # its length is that of the others
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
