"""Plans: which depths are to be tried next, given the scores so far; the same answer in every worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Scores = Mapping[int, float]
"""Depth -> mean score of a depth that is done."""

SHARE = 0.30
LEAST_DEPTHS = 13


def budget(depths: int) -> float:
    """What `Quick` may spend, in full fine-tunings: 30 % of one for every depth, as if there were at least 13.

    In a shallower model the coarse depths alone come to that share, and the best one's neighbours would stay untried.
    """
    return SHARE * max(depths, LEAST_DEPTHS)


class Plan(Protocol):
    """Says which depths are wanted, in the order in which they should begin."""

    def wanted(self, done: Scores) -> Sequence[int]:
        """All depths wanted so far, those of `done` included. The search is over when none of them is left to do."""

    def conclusion(self, done: Scores) -> str | None:
        """What a reader must know of depths that were not tried; None where all were."""


@dataclass(frozen=True)
class Exhaustive:
    """Every depth, from shallow to deep: each starts from the rows that the one before has left."""

    depths: tuple[int, ...]

    def wanted(self, done: Scores) -> Sequence[int]:
        return sorted(self.depths)

    def conclusion(self, done: Scores) -> str | None:
        return None


@dataclass(frozen=True)
class Quick:
    """Coarse depths first, then around the best, until no untried depth can still win by more than `tolerance`.

    The rule rests on one assumption: past the coarse grid's resolution the curve is a hill, so that every further
    frozen block costs at least as much as the one before it. An untried depth then lies below the straight lines
    through the tried depths on either side of its gap, drawn on into it. That bound says which depths can still win,
    which of them is tried next (the highest bound, of equal ones the cheapest), and when it is over. A curve that is
    no hill can hide a better depth: `conclusion` says how many depths were not tried.

    `cost`: depth -> predicted time of a run / that of full fine-tuning. A depth whose cost would bring the sum above
    `budget` is not begun.
    """

    depths: tuple[int, ...]
    tolerance: float
    cost: Callable[[int], float] = field(repr=False)

    def wanted(self, done: Scores) -> Sequence[int]:
        coarse = self.coarse()
        if not set(coarse) <= set(done):
            return coarse
        tried = sorted(done)
        following = self._next(done)
        return [*tried, *([] if following is None else [following])]

    def coarse(self) -> list[int]:
        """Both ends and two depths between them, evenly spread; all depths where they are few."""
        depths = sorted(self.depths)
        last = len(depths) - 1
        return depths if last < 4 else [depths[round(part * last / 3)] for part in range(4)]

    def bounds(self, done: Scores) -> dict[int, float]:
        """The highest score that each untried depth can have, on the assumption of a hill."""
        tried = sorted(done)
        found = {}
        for depth in sorted(set(self.depths) - set(tried)):
            right = next(place for place, other in enumerate(tried) if other > depth)
            left = right - 1
            # Lines through the two tried depths left of the gap and the two right of it, where there are two.
            sides = [(left, left - 1)] * (left > 0) + [(right, right + 1)] * (right + 1 < len(tried))
            lines = [_line(done, tried[near], tried[far], depth) for near, far in sides]
            # Tried neighbours that contradict a hill still show what is possible near them.
            found[depth] = max(min(lines), done[tried[left]], done[tried[right]])
        return found

    def conclusion(self, done: Scores) -> str | None:
        if not set(self.coarse()) <= set(done):
            return None  # a coarse depth failed, which is said elsewhere
        left = self.bounds(done)
        if not left:
            return None
        told = f"{len(done)} of {len(self.depths)} depths were tried"
        best = max(done.values())
        gain = max(left.values()) - best
        if gain <= self.tolerance:
            return (
                f"{told}; if every further frozen block costs at least as much as the one before it, none of the "
                f"others wins by more than {100 * self.tolerance:g} points."
            )
        able = ", ".join(str(depth) for depth, bound in sorted(left.items()) if bound - best > self.tolerance)
        spent = f"the budget of {budget(len(self.depths)):.1f} full fine-tunings was used up"
        ended = spent if self._next(done) is None else "one failed"
        return f"{told}, then {ended}; depth {able} might still win by up to {100 * gain:.1f} points."

    def _next(self, done: Scores) -> int | None:
        best = max(done.values())
        bounds = self.bounds(done)
        spent = sum(self.cost(depth) for depth in done)
        room = budget(len(self.depths)) - spent
        winning = [d for d, bound in bounds.items() if bound - best > self.tolerance and self.cost(d) <= room]
        return max(winning, key=lambda depth: (bounds[depth], -self.cost(depth)), default=None)


def _line(done: Scores, near: int, far: int, depth: int) -> float:
    """The straight line through two tried depths, at `depth`."""
    return done[near] + (done[near] - done[far]) / (near - far) * (depth - near)
