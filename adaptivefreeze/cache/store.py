"""Rows of hidden states in memory, packed without padding, each store up to its budget."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

CHUNK_BYTES = 32 * 2**20
# A key, its place in the dictionary and in the arrays beside it, as measured over a million rows.
INDEX_BYTES = 200


@dataclass
class _Arena:
    """Chunks of one width and dtype: `chunks[c][o : o + n]` is a row of n tokens."""

    width: tuple[int, ...]
    dtype: torch.dtype
    chunks: list[torch.Tensor] = field(default_factory=list)
    used: int = 0  # tokens in the last chunk
    free: dict[int, list[int]] = field(default_factory=dict)  # length -> slots given back

    @property
    def token_bytes(self) -> int:
        return math.prod(self.width) * self.dtype.itemsize


class RowStore:
    """Maps a key to one row of shape (tokens, …) and the boundary it was taken at.

    Rows are copied into large chunks, so a million of them are a dictionary and four arrays, not a million tensors.
    What does not fit into `budget` bytes, index included, is not kept. `device` says where the rows lie; on the host
    they are pinned when `pinned`.
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

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def used_bytes(self) -> int:
        """Bytes taken: whole chunks, and the index."""
        return self._chunk_bytes + INDEX_BYTES * len(self._offset)

    def boundary(self, key: bytes) -> int | None:
        """How many units the row of `key` has behind it, or None for an unknown key."""
        slot = self._slots.get(key)
        return None if slot is None else self._boundary[slot]

    def get(self, key: bytes) -> torch.Tensor:
        """The row of `key`, a view. Raises `KeyError` for an unknown key."""
        slot = self._slots[key]
        chunk = self._arenas[self._arena[slot]].chunks[self._chunk[slot]]
        return chunk[self._offset[slot] : self._offset[slot] + self._length[slot]]

    def put(self, key: bytes, boundary: int, row: torch.Tensor) -> bool:
        """Keep a copy of `row`, in place of the key's former one. False when it does not fit."""
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
        self.get(key).copy_(row)
        return True

    def drop_above(self, boundary: int) -> int:
        """Forget the rows that have more than `boundary` units behind them; how many they were."""
        gone = [key for key, slot in self._slots.items() if self._boundary[slot] > boundary]
        for key in gone:
            self._forget(key)
        return len(gone)

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
            # Room is for rows like this one and for their index; the last chunk may be smaller than the others.
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
    """Stores in order of nearness: a row is kept in the first that has room for it."""

    def __init__(self, stores: Sequence[RowStore]) -> None:
        self.stores = tuple(stores)

    def __len__(self) -> int:
        return sum(len(store) for store in self.stores)

    @property
    def used_bytes(self) -> int:
        """Bytes taken in all stores."""
        return sum(store.used_bytes for store in self.stores)

    @property
    def refused(self) -> int:
        """How often a row found room in none of them."""
        return self.stores[-1].refused

    def boundary(self, key: bytes) -> int | None:
        """How many units the row of `key` has behind it, or None for an unknown key."""
        return next((found for store in self.stores if (found := store.boundary(key)) is not None), None)

    def get(self, key: bytes) -> torch.Tensor:
        """The row of `key`, a view, wherever it lies. Raises `KeyError` for an unknown key."""
        for store in self.stores:
            if store.boundary(key) is not None:
                return store.get(key)
        raise KeyError(key)

    def put(self, key: bytes, boundary: int, row: torch.Tensor) -> bool:
        """Keep a copy of `row`, where the former one lay or in the first with room. False where none has."""
        for store in self.stores:
            if store.boundary(key) is not None:
                if store.put(key, boundary, row):
                    return True
                break  # its own store gave it up: another may have room
        return any(store.put(key, boundary, row) for store in self.stores)

    def drop_above(self, boundary: int) -> int:
        """Forget the rows that have more than `boundary` units behind them; how many they were."""
        return sum(store.drop_above(boundary) for store in self.stores)


def stores_for(device: torch.device, budget: int) -> Tiers:
    """Where rows for a model on `device` are kept: `budget` bytes of the host; before them, on a CUDA device, a quarter
    of its free memory, and the host's rows in pinned memory."""
    if device.type != "cuda":
        return Tiers([RowStore(budget)])
    free, _ = torch.cuda.mem_get_info(device)
    return Tiers([RowStore(free // 4, device), RowStore(budget, pinned=True)])
