"""The freeze mask: which units of a model are frozen, as an immutable value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .slices import Slice

EMBEDDINGS = "embeddings"
HEAD = "head"


def block_name(index: int) -> str:
    """Return the name of a block's unit: `block_name(3)` is `"block 3"`."""
    return f"block {index}"


@dataclass(frozen=True)
class FreezeMask:
    """The frozen units of a model. Immutable and hashable.

    Args:
        depth: Number of blocks of the model.
        embeddings: Whether the embeddings are frozen.
        blocks: Indices of the frozen blocks, counted from 0 at the bottom.
        head: Whether the head is frozen.
        parts: Parts of units that are not frozen as a whole: pairs of a unit's name and a regular
            expression that is searched in the names of its parameters.
        slices: Parts of parameters of units that are not frozen as a whole: rows, columns or single elements.

    Raises:
        ValueError: When a block lies outside the model.

    Example:
        >>> mask = FreezeMask(12, embeddings=True, blocks=range(6))
        >>> str(mask)
        'embeddings+0-5 | 6-11 head'
        >>> mask.prefix  # the embeddings and six blocks
        7
    """

    depth: int
    embeddings: bool = False
    blocks: frozenset[int] = frozenset()
    head: bool = False
    parts: frozenset[tuple[str, str]] = field(default=frozenset())
    slices: frozenset[Slice] = field(default=frozenset())

    def __init__(
        self,
        depth: int,
        *,
        embeddings: bool = False,
        blocks: Iterable[int] = (),
        head: bool = False,
        parts: Iterable[tuple[str, str]] = (),
        slices: Iterable[Slice] = (),
    ) -> None:
        frozen = frozenset(blocks)
        outside = sorted(i for i in frozen if not 0 <= i < depth)
        if outside:
            raise ValueError(f"blocks {outside} are outside a model of {depth} blocks (0 to {depth - 1})")
        whole = {block_name(i) for i in frozen}
        whole |= {name for name, on in ((EMBEDDINGS, embeddings), (HEAD, head)) if on}
        for name, value in (
            ("depth", depth),
            ("embeddings", bool(embeddings)),
            ("blocks", frozen),
            ("head", bool(head)),
            ("parts", frozenset((unit, pattern) for unit, pattern in parts if unit not in whole)),
            ("slices", frozenset(part for part in slices if part.unit not in whole)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def first(cls, depth: int, blocks: int) -> FreezeMask:
        """Return the mask with the embeddings and the first `blocks` blocks frozen.

        Args:
            depth: Number of blocks of the model.
            blocks: Number of frozen blocks, from 0 to `depth`.
        """
        return cls(depth, embeddings=True, blocks=range(blocks))

    @property
    def prefix(self) -> int:
        """Number of leading units that are frozen as a whole: 0 without the embeddings, else 1 + leading blocks.

        A prefix cache may skip it. `BlockStack.prefix` also counts units that the user or PEFT froze.
        """
        if not self.embeddings:
            return 0
        return 1 + next((i for i in range(self.depth) if i not in self.blocks), self.depth)

    @property
    def leading_blocks(self) -> int:
        """Number of leading blocks that are frozen together with the embeddings."""
        return max(0, self.prefix - 1)

    @property
    def units(self) -> frozenset[str]:
        """Names of the units that are frozen as a whole."""
        names = {block_name(i) for i in self.blocks}
        names |= {name for name, on in ((EMBEDDINGS, self.embeddings), (HEAD, self.head)) if on}
        return frozenset(names)

    def covers(self, other: FreezeMask) -> bool:
        """Return whether this mask freezes everything that `other` freezes."""
        return (self | other) == self

    def __or__(self, other: FreezeMask) -> FreezeMask:
        """Return the mask that freezes what either mask freezes.

        Raises:
            ValueError: When the masks have different depths.
        """
        if self.depth != other.depth:
            raise ValueError(f"masks of {self.depth} and of {other.depth} blocks cannot be joined")
        return FreezeMask(
            self.depth,
            embeddings=self.embeddings or other.embeddings,
            blocks=self.blocks | other.blocks,
            head=self.head or other.head,
            parts=self.parts | other.parts,
            slices=self.slices | other.slices,
        )

    def __str__(self) -> str:
        frozen = [EMBEDDINGS] * self.embeddings + _ranges(self.blocks) + [HEAD] * self.head
        frozen += [f"{unit.removeprefix('block ')}.{pattern}" for unit, pattern in sorted(self.parts, key=_part_order)]
        frozen += _described(self.slices)
        free = [] if self.embeddings else [EMBEDDINGS]
        free += _ranges(set(range(self.depth)) - self.blocks) + ([] if self.head else [HEAD])
        return f"{'+'.join(frozen) or '-'} | {' '.join(free) or '-'}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for `from_json`."""
        return {
            "depth": self.depth,
            "embeddings": self.embeddings,
            "blocks": sorted(self.blocks),
            "head": self.head,
            "parts": sorted(list(part) for part in self.parts),
            "slices": [part.to_json() for part in sorted(self.slices, key=repr)],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FreezeMask:
        """Return the mask that `to_json` described."""
        return cls(
            value["depth"],
            embeddings=value["embeddings"],
            blocks=value["blocks"],
            head=value["head"],
            parts=((unit, pattern) for unit, pattern in value["parts"]),
            slices=map(Slice.from_json, value.get("slices", ())),  # absent in files of earlier versions
        )


def _part_order(part: tuple[str, str]) -> tuple[int, str]:
    unit, pattern = part
    return _position(unit), pattern


def _position(unit: str) -> int:
    return -1 if unit == EMBEDDINGS else 10**9 if unit == HEAD else int(unit.split()[1])


def _described(slices: Iterable[Slice]) -> list[str]:
    """`["0-11.query.weight[rows 0-63]"]`. Units are joined, and so are patterns; several are left out."""
    units: dict[str, set[str]] = {}
    patterns: dict[str, set[str]] = {}
    for part in slices:
        units.setdefault(part.what, set()).add(part.unit)
        patterns.setdefault(part.what, set()).add(part.pattern)
    texts = []
    for what in sorted(units, key=lambda what: (min(map(_position, units[what])), what)):
        blocks = {_position(unit) for unit in units[what] - {EMBEDDINGS, HEAD}}
        where = "+".join([u for u in (EMBEDDINGS,) if u in units[what]] + _ranges(blocks))
        where += ("+" if where and HEAD in units[what] else "") + (HEAD if HEAD in units[what] else "")
        pattern = next(iter(patterns[what])).strip("^$").replace("\\", "") if len(patterns[what]) == 1 else ""
        texts.append(f"{where}{'.' if pattern else ''}{pattern}[{what}]")
    return texts


def _ranges(indices: Iterable[int]) -> list[str]:
    """`{0, 1, 2, 5}` -> `["0-2", "5"]`."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return [str(a) if a == b else f"{a}-{b}" for a, b in runs]
