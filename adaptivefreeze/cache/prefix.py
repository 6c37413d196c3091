"""Settings of the prefix cache, and what it keeps from one run to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import convert_file_size_to_int

from ..errors import RequestError
from .fingerprint import PrefixFingerprints
from .precision import COMPUTES, PRECISIONS, Compute, Precision
from .stats import CacheStats
from .store import Tiers, stores_for


class CacheState:
    """What a `PrefixCache` keeps from one run to the next: rows in memory, and the statistics of the latest run.

    Args:
        budget: Budget for rows in host memory, in bytes.

    Attributes:
        budget: The budget.
        stats: Statistics of the latest run.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.stats = CacheStats()
        self._device = torch.device("cpu")
        self._store = stores_for(self._device, budget)
        self._fingerprints: PrefixFingerprints | None = None

    def start_run(self, fingerprints: PrefixFingerprints, depth: int, stats: CacheStats) -> Tiers:
        """Return the row store for a run. It holds the rows of earlier runs that are valid for this model.

        Args:
            fingerprints: Fingerprints of the model.
            depth: Number of blocks of the model.
            stats: The statistics that the run will update.
        """
        self.stats = stats
        if fingerprints.device != self._device:
            self._device = fingerprints.device
            self._store = stores_for(self._device, self.budget)
        earlier, self._fingerprints = self._fingerprints, fingerprints
        if earlier is not None and len(self._store):
            valid = next((units for units in range(depth + 1, 0, -1) if earlier.same(fingerprints, units)), 0)
            self._store.drop_above(valid)
        return self._store


@dataclass(frozen=True)
class PrefixCache:
    """Settings of the prefix cache, which skips the frozen prefix of a model for examples seen before.

    The cache stores the output of the frozen prefix for each example. When the example occurs again, training continues
    from the stored output. The prefix runs in evaluation mode. Runs that share one `PrefixCache` also share the rows in
    memory, as far as the frozen weights are the same.

    Args:
        memory: Budget for rows in host memory: a number of bytes, or a size such as `"4GiB"` or `"500MB"`. By default,
            a quarter of the memory that is available now.
        disk: Folder for rows. Later runs with the same frozen weights reuse them, from other processes too.
        dropout: Probability of dropout on the rows during training.
        precision: Precision of stored rows: `"exact"` (as computed), `"float16"`, `"bfloat16"`, or `"int8"` with a
            scale for each token. Training sees the rounded values from the first pass on.
        passes: If positive, store this many rows per example, with dropout active in the prefix, and use them in turn,
            one per epoch. If 0, store one row per example, computed in evaluation mode.
        compute: `"int8"` fills the cache with linear layers that run in 8 bits, on a CPU: faster, and rounded. The
            trained model and its evaluation are not rounded.

    Raises:
        RequestError: If a setting is invalid.

    Example:
        ```python
        callback = FreezeCallback("bottom-up:6", cache=PrefixCache(memory="4GiB", disk="rows"))
        Trainer(model=model, args=args, train_dataset=train, callbacks=[callback]).train()
        print(callback.cache.stats.hit_rate)
        ```
    """

    memory: str | int | None = None
    disk: str | Path | None = None
    dropout: float = field(default=0.0, kw_only=True)
    passes: int = field(default=0, kw_only=True)
    precision: Precision = field(default="exact", kw_only=True)
    compute: Compute = field(default="exact", kw_only=True)
    state: CacheState = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout on cached rows must lie in [0, 1), not {self.dropout!r}.")
        if isinstance(self.passes, bool) or not isinstance(self.passes, int) or self.passes < 0:
            raise RequestError(f"passes must be a whole number, 0 or more, not {self.passes!r}.")
        if self.precision not in PRECISIONS:
            raise RequestError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        if self.compute not in COMPUTES:
            raise RequestError(f"compute must be {' or '.join(COMPUTES)}, not {self.compute!r}.")
        budget = psutil.virtual_memory().available // 4 if self.memory is None else _bytes(self.memory)
        object.__setattr__(self, "state", CacheState(budget))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        disk = None if self.disk is None else str(self.disk)
        return {
            "memory": self.memory,
            "disk": disk,
            "dropout": self.dropout,
            "passes": self.passes,
            "precision": self.precision,
            "compute": self.compute,
        }

    @property
    def stats(self) -> CacheStats:
        """Statistics of the current run, or of the latest one after it has ended."""
        return self.state.stats


def _bytes(size: str | int) -> int:
    """The number of bytes of a `memory` setting."""
    try:
        if isinstance(size, bool) or not isinstance(size, (int, str)):
            raise ValueError("neither a number of bytes nor a size")
        # accelerate reads "4gb" as gigabits; here the case of a unit does not matter.
        count: int = convert_file_size_to_int(size.upper() if isinstance(size, str) else size)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"memory must be a number of bytes or a size such as '4GiB' or '500MB', not {size!r}."
        ) from error
    return count
