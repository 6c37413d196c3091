"""The timeline of a run: which mask was in force from which step on, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .mask import FreezeMask


@dataclass(frozen=True)
class Change:
    """A change of the mask.

    Args:
        step: Number of optimizer steps taken before the change.
        mask: The mask in force from then on.
        reason: Why, in one line.
    """

    step: int
    mask: FreezeMask
    reason: str


class Timeline:
    """The masks of a run, in order. A sequence of `Change`.

    Args:
        changes: The changes so far.

    Example:
        >>> timeline = Timeline()
        >>> timeline.record(0, FreezeMask(4), "start")
        >>> timeline.record(50, FreezeMask.first(4, 2), "two blocks have converged")
        >>> str(timeline.at(49)), str(timeline.at(50))
        ('- | embeddings 0-3 head', 'embeddings+0-1 | 2-3 head')
        >>> timeline
        from step  frozen | trainable         reason
                0  - | embeddings 0-3 head    start
               50  embeddings+0-1 | 2-3 head  two blocks have converged
    """

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self._changes = list(changes)

    def record(self, step: int, mask: FreezeMask, reason: str) -> None:
        """Add a change. It replaces an earlier change at the same step.

        Args:
            step: Number of optimizer steps taken.
            mask: The mask in force from now on.
            reason: Why, in one line.

        Raises:
            ValueError: When `step` is before the last change.
        """
        if self._changes and step < self._changes[-1].step:
            raise ValueError(f"step {step} lies before the last recorded change at step {self._changes[-1].step}")
        if self._changes and step == self._changes[-1].step:
            self._changes.pop()
        self._changes.append(Change(step, mask, reason))

    def at(self, step: int) -> FreezeMask:
        """Return the mask in force during step `step`, counted from 0.

        Raises:
            LookupError: When the first change comes later.
        """
        held = [change.mask for change in self._changes if change.step <= step]
        if not held:
            raise LookupError(f"nothing was recorded up to step {step}")
        return held[-1]

    def spans(self, steps: int) -> list[tuple[FreezeMask, int]]:
        """Return each mask with the number of steps it was in force, in a run of `steps` steps."""
        ends = [change.step for change in self._changes[1:]] + [steps]
        return [
            (change.mask, max(0, min(end, steps) - change.step))
            for change, end in zip(self._changes, ends, strict=False)
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain JSON, for checkpoints and result files.

        Each entry has `step`, `reason`, the mask for readers (`mask`, such as `embeddings+0-2 | 3-11 head`) and the
        mask as JSON (`frozen`), from which `from_json` reads it.
        """
        return [
            {"step": c.step, "mask": str(c.mask), "frozen": c.mask.to_json(), "reason": c.reason} for c in self._changes
        ]

    @classmethod
    def from_json(cls, entries: Sequence[Mapping[str, Any]]) -> Timeline:
        """Return the timeline that `to_json` described."""
        return cls([Change(entry["step"], FreezeMask.from_json(entry["frozen"]), entry["reason"]) for entry in entries])

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __getitem__(self, index: int) -> Change:
        return self._changes[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeline) and self._changes == other._changes

    def __repr__(self) -> str:
        if not self._changes:
            return "Timeline()"
        rows = [("from step", "frozen | trainable", "reason")]
        rows += [(f"{change.step:,}", str(change.mask), change.reason) for change in self._changes]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{step:>{first}}  {mask:<{second}}  {why}".rstrip() for step, mask, why in rows)

    __hash__ = None  # type: ignore[assignment]  # mutable
