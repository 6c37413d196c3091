"""Precision of stored rows: as computed, in half precision, or in 8 bits with a scale for each vector."""

from __future__ import annotations

from typing import Literal, get_args

import torch

Precision = Literal["exact", "float16", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Compute = Literal["exact", "int8"]
COMPUTES: tuple[Compute, ...] = get_args(Compute)

_SCALE_BYTES = torch.float32.itemsize
_LARGEST = 127


def encode(hidden: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Return hidden states as they are stored.

    Args:
        hidden: Hidden states of shape (…, hidden).
        precision: With `int8`, each vector is scaled so that its largest value becomes 127. Its scale is stored in the
            four bytes after its values.

    Returns:
        A tensor of shape (…, hidden), or (…, hidden + 4) for `int8`.
    """
    if precision == "exact":
        return hidden
    if precision != "int8":
        return hidden.to(getattr(torch, precision))
    values = hidden.float()
    scale = values.abs().amax(-1, keepdim=True) / _LARGEST
    rounded = (values / scale.clamp_min(torch.finfo(torch.float32).tiny)).round_().to(torch.int8)
    return torch.cat([rounded, scale.contiguous().view(torch.int8)], dim=-1)


def decode(stored: torch.Tensor, precision: Precision, dtype: torch.dtype) -> torch.Tensor:
    """Return the hidden states that `encode` received, rounded.

    Args:
        stored: A tensor that `encode` returned. Zeros decode to zeros.
        precision: Its precision.
        dtype: Data type of the hidden states.
    """
    if precision == "exact":
        return stored
    if precision != "int8":
        return stored.to(dtype)
    scale = stored[..., -_SCALE_BYTES:].contiguous().view(torch.float32)
    return (stored[..., :-_SCALE_BYTES] * scale).to(dtype)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the data type that autocast computes in on a device, or None where it is off or not available."""
    kind = device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if enabled else None
