"""KeptMoments: the optimizer state of frozen parameters, kept in host memory until they thaw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# Where a value belongs: as a prefix of its name in a checkpoint.
_DEVICE, _HOST, _NUMBER = "moments on device", "moments on host", "moments as numbers"


class KeptMoments:
    """Optimizer state by parameter name."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, tuple[str, torch.Tensor]]] = {}

    def keep(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep `state`, which the optimizer held for parameter `name`: its tensors and numbers."""
        self._kept[name] = {key: _held(value) for key, value in state.items() if _is_kept(value)}

    def put_back(self, optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter) -> None:
        """Give `optimizer` the state that was kept for `name`, if any was."""
        kept = self._kept.pop(name, None)
        if not kept:
            return
        state: dict[str, Any] = {}
        for key, (place, value) in kept.items():
            state[key] = value.item() if place == _NUMBER else value.to(parameter.device) if place == _DEVICE else value
        optimizer.state[parameter] = state

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a checkpoint: `place/parameter/key` -> tensor."""
        return {
            f"{place}/{name}/{key}": value
            for name, state in self._kept.items()
            for key, (place, value) in state.items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave; other names are passed over."""
        self._kept = {}
        for path, value in tensors.items():
            place, _, rest = path.partition("/")
            if place in (_DEVICE, _HOST, _NUMBER):
                name, _, key = rest.rpartition("/")
                self._kept.setdefault(name, {})[key] = (place, value)


def _is_kept(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, int, float))


def _held(value: Any) -> tuple[str, torch.Tensor]:
    if not isinstance(value, torch.Tensor):
        return _NUMBER, torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    return (_HOST if value.device.type == "cpu" else _DEVICE), value.detach().to("cpu")
