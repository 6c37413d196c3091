"""Timeline: what was frozen when, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .mask import FreezeMask


@dataclass(frozen=True)
class Change:
    """From optimizer step `step` on, `mask` holds, for `reason`."""

    step: int
    mask: FreezeMask
    reason: str


class Timeline:
    """The changes of a run's mask in the order in which they were made."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self._changes = list(changes)

    def record(self, step: int, mask: FreezeMask, reason: str) -> None:
        """Note that `mask` holds from `step` on. A second change at one step replaces the first.

        Raises `ValueError` when `step` lies before the last change: history is not rewritten.
        """
        if self._changes and step < self._changes[-1].step:
            raise ValueError(f"step {step} lies before the last recorded change at step {self._changes[-1].step}")
        if self._changes and step == self._changes[-1].step:
            self._changes.pop()
        self._changes.append(Change(step, mask, reason))

    def at(self, step: int) -> FreezeMask:
        """The mask that step number `step` (from 0) was run with. Raises `LookupError` before the first change."""
        held = [change.mask for change in self._changes if change.step <= step]
        if not held:
            raise LookupError(f"nothing was recorded up to step {step}")
        return held[-1]

    def spans(self, steps: int) -> list[tuple[FreezeMask, int]]:
        """Each mask with the number of steps it was held for, in a run of `steps` steps."""
        ends = [change.step for change in self._changes[1:]] + [steps]
        return [
            (change.mask, max(0, min(end, steps) - change.step))
            for change, end in zip(self._changes, ends, strict=False)
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """For people and result files: `[{"step": 0, "mask": "embeddings+0-2 | 3-11 head", "reason": "static"}]`."""
        return [{"step": c.step, "mask": str(c.mask), "reason": c.reason} for c in self._changes]

    def state_dict(self) -> list[dict[str, Any]]:
        """Plain JSON, for `from_state`."""
        return [{"step": c.step, "mask": c.mask.to_json(), "reason": c.reason} for c in self._changes]

    @classmethod
    def from_state(cls, state: Sequence[dict[str, Any]]) -> Timeline:
        """The timeline that `state_dict` described."""
        return cls([Change(c["step"], FreezeMask.from_json(c["mask"]), c["reason"]) for c in state])

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __getitem__(self, index: int) -> Change:
        return self._changes[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeline) and self._changes == other._changes

    __hash__ = None  # type: ignore[assignment]  # it grows
