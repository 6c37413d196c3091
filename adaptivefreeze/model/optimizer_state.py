"""The optimizer state of frozen parameters, kept in host memory until they are thawed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .sharding import full, placed_like

# Where a value is stored by the optimizer. The first part of its name in a checkpoint.
_DEVICE, _HOST, _NUMBER = "optimizer state on device", "optimizer state on host", "optimizer state as number"


class KeptOptimizerState:
    """Optimizer state by parameter name, in host memory."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, tuple[str, torch.Tensor]]] = {}

    def keep(self, name: str, state: Mapping[str, Any]) -> None:
        """Store the tensors and numbers in `state`, which the optimizer held for the parameter `name`."""
        self._kept[name] = {key: _to_host(value) for key, value in state.items() if _can_be_kept(value)}

    def put_back(self, optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter) -> None:
        """Move the state stored for `name`, if there is any, into `optimizer`."""
        kept = self._kept.pop(name, None)
        if not kept:
            return
        state: dict[str, Any] = {}
        for key, (place, value) in kept.items():
            if place == _NUMBER:
                state[key] = value.item()
            else:
                state[key] = placed_like(value, parameter) if place == _DEVICE else value
        optimizer.state[parameter] = state

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the contents for a checkpoint, as `place/parameter/key` -> tensor."""
        return {
            f"{place}/{name}/{key}": full(value)
            for name, state in self._kept.items()
            for key, (place, value) in state.items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `tensors()` returned. Other names are ignored."""
        self._kept = {}
        for path, value in tensors.items():
            place, _, rest = path.partition("/")
            if place in (_DEVICE, _HOST, _NUMBER):
                name, _, key = rest.rpartition("/")
                self._kept.setdefault(name, {})[key] = (place, value)


def _can_be_kept(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, int, float))


def _to_host(value: Any) -> tuple[str, torch.Tensor]:
    if not isinstance(value, torch.Tensor):
        return _NUMBER, torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    return (_HOST if value.device.type == "cpu" else _DEVICE), value.detach().to("cpu")
