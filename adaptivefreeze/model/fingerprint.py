"""Digests of tensors and of a model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor

_SAMPLES_PER_TENSOR = 64


class Digest(Protocol):
    """A hash object of `hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add `data` to what is hashed."""


def update_digest(digest: Digest, label: str, tensor: torch.Tensor) -> None:
    """Add a label and the values of a tensor to a hash.

    Args:
        digest: A hash object of `hashlib`.
        label: What distinguishes this tensor from others of the same bytes: name, dtype, shape.
        tensor: A tensor of any dtype, shape and device. Its bytes are hashed in C order. Of a sharded tensor, the part
            of this process is hashed.
    """
    if isinstance(tensor, DTensor):
        tensor = tensor.to_local()
    digest.update(label.encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def model_fingerprint(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """Return a digest of the names, shapes, dtypes and sampled values of a model's parameters.

    Models with equal weights have equal fingerprints. At most 64 evenly spaced values of each parameter are read:
    enough to distinguish two checkpoints, at a cost that does not grow with the size of the model.

    Args:
        model: The model, on any device.
        without: Names of parameters to leave out.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if name in without:
            continue
        values = parameter.detach().flatten()
        count = min(_SAMPLES_PER_TENSOR, values.numel())
        # Integer arithmetic: float32 cannot represent every index above 2²⁴.
        indices = torch.arange(count) * (values.numel() - 1) // max(count - 1, 1)
        label = f"{name} {tuple(parameter.shape)} {parameter.dtype}"
        update_digest(digest, label, values[indices.to(values.device)].float())
    return digest.hexdigest()[:16]
