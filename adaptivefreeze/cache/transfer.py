"""Transfers between host memory and a device that do not make the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.weak import WeakTensorKeyDictionary


class HostCopies:
    """Pairs tensors on a device with copies of the host tensors that they were moved from.

    A pair is valid until the tensor on the device is modified in place. It is removed when that tensor is deleted.
    PyTorch does not count writes through `tensor.data`, so they are missed.
    """

    def __init__(self) -> None:
        self._copies: Any = WeakTensorKeyDictionary()

    def add(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        """Store a copy of `source`, which has the values of `tensor`.

        The loader may use the memory of `source` for the next batch, so the tensor itself is not kept.
        """
        if not tensor.is_inference():  # such a tensor has no version
            self._copies[tensor] = (source.detach().clone(memory_format=torch.contiguous_format), tensor._version)

    def find(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the values of a tensor in host memory, or None if they would have to be copied from a device."""
        if tensor.device.type == "cpu":
            return tensor.detach()
        copy, version = self._copies.get(tensor, (None, None))
        return copy if copy is not None and tensor._version == version else None

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the values of a tensor in host memory. Waits for the device if there is no valid copy."""
        found = self.find(tensor)
        return (tensor.detach().cpu() if found is None else found).contiguous()


# Model inputs pass through code of others between the loader and the cache, so the pairs are global.
HOST_COPIES = HostCopies()


def move_batch(batch: Any, device: torch.device | str, *, non_blocking: bool = False) -> Any:
    """Move a batch to a device, so that the cache can compute its keys without reading it back.

    A Trainer does this by itself. In a loop of your own it saves one wait for the device in every step.

    Args:
        batch: Tensors by name. Other batches are only moved.
        device: The device.
        non_blocking: Whether tensors in pinned memory are copied asynchronously.

    Returns:
        The batch on the device, of the same type.
    """
    sources = dict(batch) if isinstance(batch, Mapping) else {}
    moved = send_to_device(batch, device, non_blocking=non_blocking)
    for name, source in sources.items():
        if isinstance(source, torch.Tensor) and source.device.type == "cpu" and moved[name] is not source:
            HOST_COPIES.add(moved[name], source)
    return moved


class HostBatch:
    """A batch that is moved by `move_batch` when accelerate moves it.

    accelerate moves any object that has a method `to` by calling it, and `DataLoader` pins any that has a method
    `pin_memory`.

    Args:
        batch: The batch, in host memory.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def pin_memory(self) -> HostBatch:
        """Return this batch in pinned memory."""
        return HostBatch(pin_memory(self._batch))  # type: ignore[no-untyped-call]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        """Return the batch, of its original type, on `device`."""
        return move_batch(self._batch, device, non_blocking=non_blocking)


def collate_on_host(collate: Callable[[Any], Any], examples: Any) -> HostBatch:
    """Collate examples into a `HostBatch`."""
    return HostBatch(collate(examples))


def index_on(device: torch.device, index: torch.Tensor) -> torch.Tensor:
    """Return an index, which is in host memory, on a device."""
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)


def rows_on(device: torch.device, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return rows on a device. Those in host memory are gathered into one pinned buffer, and copied at once.

    Args:
        device: The device.
        rows: Rows of shape (tokens, …), of one width and dtype.
    """
    on_host = [row for row in rows if row.device != device]
    if not on_host:
        return list(rows)
    lengths = [row.shape[0] for row in on_host]
    # The allocator of pinned memory reuses the buffer only after the copy, so no event has to be kept here.
    buffer = torch.empty(
        (sum(lengths), *on_host[0].shape[1:]), dtype=on_host[0].dtype, pin_memory=device.type == "cuda"
    )
    torch.cat(on_host, out=buffer)
    moved = iter(torch.split(buffer.to(device, non_blocking=True), lengths))
    return [row if row.device == device else next(moved) for row in rows]
