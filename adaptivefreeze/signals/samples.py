"""A few weights of each unit, always the same ones, and how far they have moved since training began."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack, Unit
from .base import Measure, wide

SAMPLES = 128
_SEED = 2401  # of the places; any will do, as long as every run of every model draws with the same one


class WeightSamples(Measure):
    """Keeps `SAMPLES` values a unit from the start of training, and reads as many at a moment."""

    of_first_rank = True  # the weights are the same on all

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        places = {unit.name: self._draw(unit) for unit in stack.units}
        self._places = {name: drawn for name, drawn in places.items() if drawn}
        self._start = self._take()

    def read(self) -> dict[str, list[float]]:
        scale = self._start.square().mean(dim=1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return dict(zip(self._places, ((self._take() - self._start) / scale).tolist(), strict=True))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"start": self._start}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._start = tensors["start"].to(self._start.device)

    def _draw(self, unit: Unit) -> list[tuple[str, torch.Tensor]]:
        """Places among all values of `unit`, uniformly, with repetition: parameter's name -> indices into it, flat."""
        names = [p.name for p in unit.parameters]
        sizes = [self.parameters[name].numel() for name in names]
        if not sum(sizes):
            return []
        generator = torch.Generator().manual_seed(_SEED)
        places = torch.randint(sum(sizes), (SAMPLES,), generator=generator).sort().values
        drawn, begin = [], 0
        for name, size in zip(names, sizes, strict=True):
            own = places[(places >= begin) & (places < begin + size)] - begin
            if len(own):
                drawn.append((name, own.to(self.parameters[name].device)))
            begin += size
        return drawn

    def _take(self) -> torch.Tensor:
        """(units, samples), at least single precision."""
        return torch.stack(
            [
                torch.cat([wide(self.parameters[name].detach().reshape(-1)[places]) for name, places in drawn])
                for drawn in self._places.values()
            ]
        )
