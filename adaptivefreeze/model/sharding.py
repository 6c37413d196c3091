"""Parameters that are sharded over processes (`DTensor`, as FSDP2 makes them)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(model: nn.Module) -> bool:
    """Return whether a parameter of `model` is sharded."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def reshard(model: nn.Module) -> None:
    """Free the gathered parameters that FSDP2 keeps after an evaluation. It then rereads their flags."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor. If it is sharded, every process has to call this: its parts are exchanged."""
    if isinstance(tensor, DTensor):
        # Parts that were moved to host memory have to be where the processes exchange tensors.
        parts: Any = tensor.to(tensor.device_mesh.device_type)
        whole: torch.Tensor = parts.full_tensor()
        return whole
    return tensor


def placed_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return `value` on the device of `parameter`, and sharded in the same way if it has its shape."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and not isinstance(value, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
