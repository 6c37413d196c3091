"""How far a fixed sample of the weights of each unit has moved since training began."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack, Unit
from ..model.sharding import full
from .base import Measure, at_least_float32

SAMPLES = 128
_SEED = 2401  # every run draws the same positions


class WeightSamples(Measure):
    """Stores `SAMPLES` elements of each unit at the start of training and compares them at each decision point."""

    first_rank_only = True  # all ranks hold the same weights

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        positions = {unit.name: self._draw(unit) for unit in stack.units}
        self._positions = {name: drawn for name, drawn in positions.items() if drawn}
        self._start = self._take()

    def read(self) -> dict[str, list[float]]:
        scale = self._start.square().mean(dim=1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return dict(zip(self._positions, ((self._take() - self._start) / scale).tolist(), strict=True))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"start": self._start}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._start = tensors["start"].to(self._start.device)

    def _draw(self, unit: Unit) -> list[tuple[str, torch.Tensor]]:
        """Draw positions among all elements of `unit`, uniformly, with repetition: (parameter name, flat indices)."""
        names = [p.name for p in unit.parameters]
        sizes = [self.parameters[name].numel() for name in names]
        if not sum(sizes):
            return []
        generator = torch.Generator().manual_seed(_SEED)
        positions = torch.randint(sum(sizes), (SAMPLES,), generator=generator).sort().values
        drawn, begin = [], 0
        for name, size in zip(names, sizes, strict=True):
            own = positions[(positions >= begin) & (positions < begin + size)] - begin
            if len(own):
                drawn.append((name, own.to(self.parameters[name].device)))
            begin += size
        return drawn

    def _take(self) -> torch.Tensor:
        """The current values, (units, samples), in single precision or higher."""
        return torch.stack(
            [
                torch.cat(
                    [
                        at_least_float32(full(self.parameters[name].detach()).reshape(-1)[positions])
                        for name, positions in drawn
                    ]
                )
                for drawn in self._positions.values()
            ]
        )
