"""Outputs of a frozen prefix: looked up in memory and on disk, or computed and stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from ..model.eval_mode import eval_mode
from .bypass import Bypass
from .check import check_shape
from .disk import DiskRows
from .fingerprint import PrefixFingerprints
from .int8 import Int8Linears
from .keys import Batch
from .precision import Precision, decode, encode
from .stats import CacheStats
from .store import Tiers


class PrefixRows:
    """Looks up the output of the prefix for each example of a batch, and runs the prefix for those not found.

    Args:
        bypass: Runs the prefix.
        forward: The tower's forward pass.
        modules: All modules of the tower.
        fingerprints: Fingerprints of the prefix, which rows on disk are stored under.
        store: Rows in memory.
        disk: Rows on disk, if any.
        precision: Precision of the stored rows.
        stats: Statistics to update.
        int8: Runs the linear layers of the prefix in 8 bits. None for a prefix that runs as it is.
    """

    def __init__(
        self,
        bypass: Bypass,
        forward: Callable[..., Any],
        modules: Sequence[nn.Module],
        fingerprints: PrefixFingerprints,
        store: Tiers,
        disk: DiskRows | None,
        precision: Precision,
        stats: CacheStats,
        int8: Int8Linears | None = None,
    ) -> None:
        self.store = store
        self._bypass = bypass
        self._forward = forward
        self._modules = modules
        self._fingerprints = fingerprints
        self._disk = disk
        self._precision = precision
        self._stats = stats
        self._int8 = int8
        self._seconds, self._computed = 0.0, 0  # of runs of the whole prefix

    def hidden(self, batch: Batch, boundary: int, *, drawn: bool) -> tuple[torch.Tensor, float]:
        """Return the hidden state at a boundary, and store what had to be computed.

        Args:
            batch: The inputs.
            boundary: The number of leading units to skip.
            drawn: Whether rows have dropout. Such rows are not continued from a lower boundary, because they would
                depend on the masks that were in force.

        Returns:
            The hidden state, and the seconds that running units took.
        """
        found: dict[int, list[int]] = {}  # boundary -> examples found there; 0 for those not found
        rows: dict[int, torch.Tensor] = {}
        for index, key in enumerate(batch.keys):
            at, row = self._look_up(key, boundary, lowest=boundary if drawn else 1)
            found.setdefault(at, []).append(index)
            if row is not None:
                rows[index] = row
        misses = len(found.get(0, ()))
        self._stats.hits += batch.size - misses
        self._stats.misses += misses
        computing = 0.0
        for at, indices in sorted(found.items()):
            if at == boundary:
                continue
            part = batch.select(indices)
            start = self._assemble(part, [rows[i] for i in indices]) if at else None
            begin = time.perf_counter()
            result = self.run(part, boundary, drawn=drawn, start=at, hidden=start)
            seconds = time.perf_counter() - begin
            computing += seconds
            if at:
                self._stats.carried += len(indices)
            else:
                self._seconds += seconds
                self._computed += len(indices)
            stored = encode(result, self._precision)
            for position, index in enumerate(indices):
                rows[index] = part.row(stored, position)
                self._keep(batch.keys[index], boundary, rows[index])
            if len(indices) == batch.size and stored is result:
                return result, computing
        if self._computed:
            self._stats.seconds_saved += len(found.get(boundary, ())) * self._seconds / self._computed
        return self._assemble(batch, [rows[i] for i in range(batch.size)]), computing

    def run(
        self, batch: Batch, boundary: int, *, drawn: bool, start: int = 0, hidden: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the units from boundary `start` to `boundary`: in evaluation mode, or with dropout if `drawn`."""
        if drawn:
            return batch.assemble([self._draw(batch.alone(index), boundary) for index in range(batch.size)])
        with torch.no_grad(), eval_mode(self._modules):
            result = self._run(batch, boundary, start=start, hidden=hidden)
        check_shape(result, batch, boundary)
        return result

    def _run(self, batch: Batch, boundary: int, *, start: int = 0, hidden: torch.Tensor | None = None) -> torch.Tensor:
        with nullcontext() if self._int8 is None else self._int8.active():
            return self._bypass.from_inputs(self._forward, batch, boundary, start=start, hidden=hidden)

    def forget_weights(self) -> None:
        """Round the weights again when the prefix next runs, since they may have changed."""
        if self._int8 is not None:
            self._int8.forget()

    def rounded(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return a hidden state with the precision of stored rows."""
        return decode(encode(hidden, self._precision), self._precision, hidden.dtype)

    def update_sizes(self) -> None:
        """Write the present sizes into the statistics."""
        self._stats.memory_bytes, self._stats.rows = self.store.used_bytes, len(self.store)
        self._stats.refused = self.store.refused
        if self._disk is not None:
            self._stats.disk_bytes = self._disk.bytes

    def _assemble(self, batch: Batch, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        return decode(batch.assemble(rows), self._precision, self._bypass.dtype)

    def _look_up(self, key: bytes, boundary: int, lowest: int) -> tuple[int, torch.Tensor | None]:
        """The deepest boundary from `lowest` to `boundary` with a row of the example, and the row.

        (0, None) if there is none.
        """
        known = self.store.boundary(key) or 0
        if known < lowest:
            known = 0
        if known < boundary and self._disk is not None:
            for at in range(boundary, max(known, lowest - 1, 1), -1):
                row = self._disk.get(self._fingerprints.chain(at), key)
                if row is not None:
                    self.store.put(key, at, row)
                    return at, row
        return known, self.store.get(key) if known else None

    def _keep(self, key: bytes, boundary: int, row: torch.Tensor) -> None:
        self.store.put(key, boundary, row)
        if self._disk is not None:
            self._disk.put(self._fingerprints.chain(boundary), key, row)

    def _draw(self, example: Batch, boundary: int) -> torch.Tensor:
        """The row of one example with dropout. It depends on the key alone, not on the batch or on the random state."""
        seed = int.from_bytes(example.keys[0][:8], "little") >> 1
        cuda = [t.device.index or 0 for t in example.tensors.values() if t.is_cuda][:1]
        with torch.no_grad(), torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
            result = self._run(example, boundary)
        check_shape(result, example, boundary)
        return example.row(result, 0)
