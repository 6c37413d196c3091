"""CacheStats: what a cache did in one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class CacheStats:
    """What the cache did. `seconds_spent` on looking up, storing and checking; `seconds_saved` on prefixes not run,
    estimated from the time that the prefixes which were run took. `disabled_reason`: why it stands aside, or None."""

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
        """Share of the examples looked up that needed no prefix from the bottom."""
        return self.hits / max(1, self.hits + self.misses)

    def to_json(self) -> dict[str, Any]:
        """For a result file."""
        return {**asdict(self), "hit_rate": self.hit_rate}
