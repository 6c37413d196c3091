"""Rows of hidden states in memory, stored without padding and within a budget."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

CHUNK_BYTES = 32 * 2**20
# Bytes for a key, its entry in the dictionary and in the arrays, as measured with a million rows.
INDEX_BYTES = 200


@dataclass
class _Arena:
    """Chunks of memory for rows of one width and dtype. `chunks[c][o : o + n]` is a row of n tokens."""

    width: tuple[int, ...]
    dtype: torch.dtype
    chunks: list[torch.Tensor] = field(default_factory=list)
    used: int = 0  # tokens in the last chunk
    free: dict[int, list[int]] = field(default_factory=dict)  # length -> free slots

    @property
    def token_bytes(self) -> int:
        return math.prod(self.width) * self.dtype.itemsize


class RowStore:
    """Maps a key to one row of shape (tokens, …) and its boundary, the number of units below it.

    Rows are copied into large chunks, so a million rows take a dictionary and five arrays, not a million tensors.

    Args:
        budget: Maximum size of rows and index, in bytes.
        device: Device for the rows.
        pinned: Whether host memory is pinned.

    Attributes:
        budget: The budget.
        device: The device.
        refused: Number of rows that did not fit.
    """

    def __init__(self, budget: int, device: torch.device | str = "cpu", *, pinned: bool = False) -> None:
        self.budget = budget
        self.device = torch.device(device)
        self.refused = 0
        self._pinned = pinned
        self._slots: dict[bytes, int] = {}
        self._arena, self._chunk = array("b"), array("i")
        self._offset, self._length, self._boundary = array("i"), array("i"), array("h")
        self._arenas: list[_Arena] = []
        self._chunk_bytes = 0
        self._copied: torch.cuda.Event | None = None  # after copies from a device that may not be complete

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def used_bytes(self) -> int:
        """Size of all chunks and of the index, in bytes."""
        return self._chunk_bytes + INDEX_BYTES * len(self._offset)

    @property
    def row_bytes(self) -> int:
        """Size of the hidden states in all rows, in bytes."""
        slots = self._slots.values()
        return sum(self._length[slot] * self._arenas[self._arena[slot]].token_bytes for slot in slots)

    def boundary(self, key: bytes) -> int | None:
        """Return the boundary of the row of `key`, or None if there is none."""
        slot = self._slots.get(key)
        return None if slot is None else self._boundary[slot]

    def get(self, key: bytes) -> torch.Tensor:
        """Return a view of the row of `key`.

        Raises:
            KeyError: If there is none.
        """
        self._wait_for_copies()
        return self._view(self._slots[key])

    def put(self, key: bytes, boundary: int, row: torch.Tensor) -> bool:
        """Store a copy of `row`. It replaces an earlier row of this key.

        Returns:
            Whether it fits into the budget. If not, the key has no row any more.
        """
        slot = self._slots.get(key)
        if slot is not None and self._fits(slot, row):
            self._boundary[slot] = boundary
        else:
            if slot is not None:
                self._forget(key)
            slot = self._allocate(row)
            if slot is None:
                self.refused += 1
                return False
            self._slots[key] = slot
            self._boundary[slot] = boundary
        if self._pinned and row.is_cuda:
            self._view(slot).copy_(row, non_blocking=True)
            self._copied = self._copied or torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(row.device))
        else:
            self._wait_for_copies()
            self._view(slot).copy_(row)
        return True

    def drop_above(self, boundary: int) -> int:
        """Drop the rows above `boundary`, and return how many there were."""
        gone = [key for key, slot in self._slots.items() if self._boundary[slot] > boundary]
        for key in gone:
            self._forget(key)
        return len(gone)

    def _wait_for_copies(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None

    def _view(self, slot: int) -> torch.Tensor:
        chunk = self._arenas[self._arena[slot]].chunks[self._chunk[slot]]
        return chunk[self._offset[slot] : self._offset[slot] + self._length[slot]]

    def _fits(self, slot: int, row: torch.Tensor) -> bool:
        arena = self._arenas[self._arena[slot]]
        return self._length[slot] == row.shape[0] and (arena.width, arena.dtype) == (tuple(row.shape[1:]), row.dtype)

    def _forget(self, key: bytes) -> None:
        slot = self._slots.pop(key)
        self._arenas[self._arena[slot]].free.setdefault(self._length[slot], []).append(slot)

    def _allocate(self, row: torch.Tensor) -> int | None:
        number = self._arena_for(row)
        arena, length = self._arenas[number], int(row.shape[0])
        if arena.free.get(length):
            return arena.free[length].pop()
        if not arena.chunks or arena.used + length > arena.chunks[-1].shape[0]:
            # Space for rows like this one and their index. The last chunk may be smaller than the others.
            row_bytes = length * arena.token_bytes
            rows = (self.budget - self.used_bytes) // (row_bytes + INDEX_BYTES)
            limit = max(1, min(CHUNK_BYTES, self.budget // 8) // max(1, row_bytes))
            tokens = min(rows, limit) * length
            if rows < 1:
                return None
            chunk = torch.empty((tokens, *arena.width), dtype=arena.dtype, device=self.device, pin_memory=self._pinned)
            arena.chunks.append(chunk)
            arena.used = 0
            self._chunk_bytes += chunk.nbytes
        elif self.used_bytes + INDEX_BYTES > self.budget:
            return None
        slot = len(self._offset)
        for column, value in (
            (self._arena, number),
            (self._chunk, len(arena.chunks) - 1),
            (self._offset, arena.used),
            (self._length, length),
            (self._boundary, 0),
        ):
            column.append(value)
        arena.used += length
        return slot

    def _arena_for(self, row: torch.Tensor) -> int:
        width = tuple(row.shape[1:])
        for number, arena in enumerate(self._arenas):
            if (arena.width, arena.dtype) == (width, row.dtype):
                return number
        self._arenas.append(_Arena(width, row.dtype))
        return len(self._arenas) - 1


class Tiers:
    """Several stores, fastest first. A row is kept in the first one that has space for it.

    Args:
        stores: The stores.
    """

    def __init__(self, stores: Sequence[RowStore]) -> None:
        self.stores = tuple(stores)

    def __len__(self) -> int:
        return sum(len(store) for store in self.stores)

    @property
    def used_bytes(self) -> int:
        """Size of all stores, in bytes."""
        return sum(store.used_bytes for store in self.stores)

    @property
    def row_bytes(self) -> int:
        """Size of the hidden states in all rows, in bytes."""
        return sum(store.row_bytes for store in self.stores)

    @property
    def refused(self) -> int:
        """Number of rows that fit into no store."""
        return self.stores[-1].refused

    def boundary(self, key: bytes) -> int | None:
        """Return the boundary of the row of `key`, or None if there is none."""
        return next((found for store in self.stores if (found := store.boundary(key)) is not None), None)

    def get(self, key: bytes) -> torch.Tensor:
        """Return a view of the row of `key`.

        Raises:
            KeyError: If there is none.
        """
        for store in self.stores:
            if store.boundary(key) is not None:
                return store.get(key)
        raise KeyError(key)

    def put(self, key: bytes, boundary: int, row: torch.Tensor) -> bool:
        """Store a copy of `row` in the store of an earlier row of this key, or in the first that has space.

        Returns:
            Whether it fits into one of them.
        """
        for store in self.stores:
            if store.boundary(key) is not None:
                if store.put(key, boundary, row):
                    return True
                break  # that store has dropped the row; another may have space
        return any(store.put(key, boundary, row) for store in self.stores)

    def drop_above(self, boundary: int) -> int:
        """Drop the rows above `boundary`, and return how many there were."""
        return sum(store.drop_above(boundary) for store in self.stores)


def stores_for(device: torch.device, budget: int) -> Tiers:
    """Return the stores for a model on `device`.

    Args:
        device: The device of the model. On CUDA, a quarter of its free memory is used before pinned host memory.
        budget: Maximum size in host memory, in bytes.
    """
    if device.type != "cuda":
        return Tiers([RowStore(budget)])
    free, _ = torch.cuda.mem_get_info(device)
    return Tiers([RowStore(free // 4, device), RowStore(budget, pinned=True)])
