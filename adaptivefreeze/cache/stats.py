"""Statistics of a cache in one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class CacheStats:
    """Statistics of a prefix cache in one run.

    Attributes:
        hits: Number of lookups that found a row, at this boundary or at a shallower one.
        misses: Number of lookups that found none, so that the whole prefix ran.
        carried: Number of hits at a shallower boundary, from which the rest of the prefix ran.
        rows: Number of rows in memory.
        memory_bytes: Size of the rows in memory and of their index, in bytes.
        disk_bytes: Bytes written to disk.
        refused: Number of rows that did not fit into memory.
        seconds_spent: Time spent on lookups, storage and the check before first use, in seconds.
        seconds_saved: Estimated time of the prefixes that were skipped, in seconds. The estimate uses the mean time of
            the prefixes that ran.
        disabled_reason: Why the cache is disabled, or None if it is not.
    """

    hits: int = 0
    misses: int = 0
    carried: int = 0
    rows: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    refused: int = 0
    seconds_spent: float = 0.0
    seconds_saved: float = 0.0
    disabled_reason: str | None = None

    @property
    def hit_rate(self) -> float:
        """Share of lookups that were hits."""
        return self.hits / max(1, self.hits + self.misses)

    def to_json(self) -> dict[str, Any]:
        """Return all statistics, the hit rate included, as plain JSON."""
        return {**asdict(self), "hit_rate": self.hit_rate}
