"""Slice: a frozen part of a parameter, as an immutable value."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Choice = Literal["listed", "first", "random", "smallest", "unseen"]

_SHOWN_RANGES = 3


@dataclass(frozen=True)
class Slice:
    """A frozen part of the parameters of one unit: rows, columns, or single elements. Immutable and hashable.

    Args:
        unit: Name of the unit, such as `block 3`.
        pattern: Regular expression that is searched in the names of the unit's parameters.
        axis: What is numbered: 0 for rows (the outputs of a linear layer, the tokens of an embedding table), 1 for
            columns, and so on. None for single elements, numbered row by row. Parameters without that axis train.
        choice: Which numbers are frozen. `listed`: those in `ranges`. `first`, `random` or `smallest`: a share of all.
            `smallest` are those with the smallest sum of absolute values when freezing starts. `unseen`: the rows of
            tokens that do not occur in the training data; `FreezeCallback` replaces it by a list.
        ranges: Pairs of the first number and the number after the last one.
        share: Share of the numbers that are frozen, from 0 to 1, rounded half up to a count.
        seed: Seed of `random`. The draw also depends on the name of the parameter.

    Raises:
        ValueError: When an argument is out of range.

    Example:
        >>> from adaptivefreeze import FreezeMask
        >>> mask = FreezeMask(12, slices=[Slice.rows("block 0", "query.weight", range(64))])
        >>> str(mask)
        '0.query.weight[rows 0-63] | embeddings 0-11 head'
    """

    unit: str
    pattern: str
    axis: int | None
    choice: Choice = "listed"
    ranges: tuple[tuple[int, int], ...] = ()
    share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        re.compile(self.pattern)
        if self.choice not in get_args(Choice):
            raise ValueError(f"choice must be one of {', '.join(get_args(Choice))}, not {self.choice!r}")
        if self.axis is not None and self.axis < 0:
            raise ValueError(f"axis must be 0 or more, or None, not {self.axis!r}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be from 0 to 1, not {self.share!r}")
        if any(not 0 <= start < end for start, end in self.ranges):
            raise ValueError(f"a range must begin at 0 or later and not be empty, not {self.ranges!r}")
        object.__setattr__(self, "ranges", _merged(self.ranges))

    @classmethod
    def rows(cls, unit: str, pattern: str, numbers: Iterable[int]) -> Slice:
        """Return the slice of these rows: outputs of a linear layer, elements of a bias, tokens of a table."""
        return cls(unit, pattern, 0, ranges=ranges_of(numbers))

    @classmethod
    def columns(cls, unit: str, pattern: str, numbers: Iterable[int]) -> Slice:
        """Return the slice of these columns: the inputs of a linear layer, the dimensions of an embedding table."""
        return cls(unit, pattern, 1, ranges=ranges_of(numbers))

    @classmethod
    def heads(cls, unit: str, pattern: str, numbers: Iterable[int], *, size: int, axis: int = 0) -> Slice:
        """Return the slice of these attention heads.

        Args:
            unit: Name of the unit.
            pattern: Regular expression for the parameters.
            numbers: Numbers of the heads, from 0.
            size: Dimensions per head.
            axis: 0 for the projections to queries, keys and values, 1 for the projection of their outputs.
        """
        return cls(unit, pattern, axis, ranges=tuple((i * size, (i + 1) * size) for i in numbers))

    @classmethod
    def elements(cls, unit: str, name: str, frozen: ArrayLike) -> Slice:
        """Return the slice of the elements where a boolean array or tensor of the parameter's shape is true.

        Args:
            unit: Name of the unit.
            name: Name of the parameter in the model.
            frozen: The array.
        """
        numbers = np.flatnonzero(np.asarray(frozen, dtype=bool))
        return cls(unit, f"^{re.escape(name)}$", None, ranges=ranges_of(numbers))

    def has_axis(self, shape: tuple[int, ...]) -> bool:
        """Return whether a parameter of this shape has the axis of this slice."""
        return self.axis is None or self.axis < len(shape)

    def length(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers there are in a parameter of this shape: its rows, its columns or its elements."""
        return math.prod(shape) if self.axis is None else shape[self.axis]

    def count(self, shape: tuple[int, ...]) -> int:
        """Return how many of them are frozen. 0 for `unseen`, which is known only once training starts."""
        if self.choice == "listed":
            return sum(end - start for start, end in self.ranges)
        return math.floor(self.share * self.length(shape) + 0.5)

    def size(self, shape: tuple[int, ...]) -> int:
        """Return how many elements are frozen in a parameter of this shape."""
        length = self.length(shape)
        return self.count(shape) * math.prod(shape) // length if length else 0

    def frozen(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return a boolean array that is true where the parameter is frozen, to be broadcast to its shape.

        Args:
            name: Name of the parameter.
            shape: Its shape.

        Raises:
            ValueError: For `smallest` and `unseen`, which a shape does not decide.
        """
        length, count = self.length(shape), self.count(shape)
        chosen = np.zeros(length, dtype=bool)
        if self.choice == "listed":
            for start, end in self.ranges:
                chosen[start:end] = True
        elif self.choice == "first":
            chosen[:count] = True
        elif self.choice == "random":
            draw = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            chosen[draw.permutation(length)[:count]] = True
        else:
            raise ValueError(f"what is {self.choice} is not decided by the shape of {name}")
        return self.shaped(chosen, shape)

    def shaped(self, chosen: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return one boolean per number in the form that broadcasts to `shape`."""
        if self.axis is None:
            return chosen.reshape(shape)
        return chosen.reshape([-1 if i == self.axis else 1 for i in range(len(shape))])

    @property
    def what(self) -> str:
        """What is frozen, in a few words: `rows 0-63`, `30% of the elements, random`."""
        kind = {None: "elements", 0: "rows", 1: "columns"}.get(self.axis, f"axis {self.axis}")
        if self.choice == "listed":
            if len(self.ranges) > _SHOWN_RANGES:
                return f"{self.count(()):,} {kind}"
            return f"{kind} {'+'.join(f'{a}-{b - 1}' if b - a > 1 else str(a) for a, b in self.ranges) or 'none'}"
        if self.choice == "unseen":
            return "rows of unseen tokens"
        if self.share == 1:
            return f"all {kind}"
        return f"{self.share:.4g} of the {kind}, {self.choice}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for `from_json`."""
        return {**asdict(self), "ranges": [list(pair) for pair in self.ranges]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Slice:
        """Return the slice that `to_json` described."""
        return cls(**{**value, "ranges": tuple((start, end) for start, end in value["ranges"])})


def ranges_of(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return numbers as pairs of the first one and the one after the last.

    Example:
        >>> ranges_of([0, 1, 2, 7])
        ((0, 3), (7, 8))
    """
    found = np.unique(np.fromiter(numbers, dtype=np.int64))
    if not found.size:
        return ()
    breaks = np.flatnonzero(np.diff(found) > 1)
    starts, ends = found[[0, *(breaks + 1)]], found[[*breaks, -1]] + 1
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges in order, without overlaps, so that equal sets of numbers are equal values."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((int(start), int(end)) for start, end in ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
