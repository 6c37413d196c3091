"""Exchange of readings and of batches between the processes of a distributed training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..policies.decision import Norms


def average_over_ranks(reading: Mapping[str, Any], device: torch.device) -> Any:
    """Average a reading of numbers and `Norms` over ranks. All ranks must hold the same names in the same order."""
    if _world_size() == 1:
        return reading
    numbers = [number for value in reading.values() for number in _numbers(value)]
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    means = iter((tensor / torch.distributed.get_world_size()).tolist())
    return {name: _from_numbers(value, means) for name, value in reading.items()}


def broadcast_from_first_rank(value: Any) -> Any:
    """Return the value of rank 0 on every rank."""
    if _world_size() == 1:
        return value
    held = [value]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]


def gather_batch(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join the batches of all ranks, in the order of the ranks.

    Args:
        batch: Name -> tensor, with the examples in the first dimension. In the other dimensions shorter tensors are
            padded with zeros.
    """
    if _world_size() == 1:
        return dict(batch)
    parts: list[dict[str, torch.Tensor]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, {name: value.cpu() for name, value in batch.items()})
    joined = {}
    for name, value in batch.items():
        values = [part[name] for part in parts]
        shape = [max(sizes) for sizes in zip(*(v.shape[1:] for v in values), strict=True)]
        joined[name] = torch.cat([_padded(v, shape) for v in values]).to(value.device)
    return joined


def _padded(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    missing = [(0, size - own) for own, size in zip(value.shape[1:], shape, strict=True)]
    return nn.functional.pad(value, [n for pair in reversed(missing) for n in pair])


def _world_size() -> int:
    single = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    return 1 if single else torch.distributed.get_world_size()


def _numbers(value: Norms | float) -> list[float]:
    return [value.l1, value.l2] if isinstance(value, Norms) else [value]


def _from_numbers(like: Norms | float, numbers: Iterator[float]) -> Norms | float:
    return Norms(next(numbers), next(numbers)) if isinstance(like, Norms) else next(numbers)
