"""Statistics of a cache in one run, and whether its lookups show that it is of use."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

_USEFUL_HITS = 0.05  # smallest share of lookups that must hit once every example could have been seen
_MARGIN = 1.25  # passes over the data before that is decided
_ASSUMED_EXAMPLES = 10_000  # where the number of training examples is unknown


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


class TrainingLookups:
    """Counts the lookups in training, to find out whether the same examples come again.

    An example may be several texts (pairs, triplets). So the rows of a whole pass over the data are counted where they
    are looked up.

    Args:
        versions: Number of rows that may be stored for each example.
        partial: Whether the next pass begins in its middle, because the run is resumed there.
    """

    def __init__(self, *, versions: int, partial: bool) -> None:
        self._versions = versions
        self._partial = partial
        self._rows = self._hits = 0
        self._pass_begins: int | None = None  # the value of _rows when the pass began, if it is whole
        self._rows_in_pass: int | None = None
        self._passes_counted = False

    def next_epoch(self, *, storing: bool) -> None:
        """Start a new pass over the data, in which rows are looked up if `storing`."""
        if self._pass_begins is not None:
            self._rows_in_pass = self._rows - self._pass_begins
        self._pass_begins = self._rows if storing and not self._partial else None
        self._passes_counted, self._partial = True, False

    def count(self, rows: int, hits: int) -> None:
        """Count the lookups of a batch."""
        self._rows += rows
        self._hits += hits

    def restart(self) -> None:
        """Count anew, because rows were dropped: misses do not mean that examples never repeat."""
        self._rows = self._hits = 0
        self._pass_begins = None

    def rarely_repeat(self, examples: int | None) -> bool:
        """Whether hardly any example was found again after it should have been.

        Args:
            examples: Number of training examples, or None if unknown.
        """
        once = examples or _ASSUMED_EXAMPLES
        if examples and self._passes_counted:
            once = self._rows_in_pass or sys.maxsize  # not before a whole pass has been counted
        return self._rows > _MARGIN * self._versions * once and self._hits < _USEFUL_HITS * self._rows
