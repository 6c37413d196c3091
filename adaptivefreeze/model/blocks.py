"""BlockStack: the units of a model, `embeddings`, `block 0` … `block L-1`, `head`, in forward order."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..errors import RequestError
from .mask import FreezeMask
from .slices import Slice

Use = Literal["matmul", "lookup", "tied", "expert", "other"]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of a model.

    Attributes:
        name: Its name in the model.
        shape: Its shape.
        use: How the forward pass uses it: `matmul` (multiplied with every token), `lookup` (an embedding table),
            `tied` (an embedding table that is also the output layer), `expert` (multiplied with the tokens that are
            routed to it), or `other`.
        trainable: Whether it required a gradient when the blocks were found. If not, the user froze it.
        active: Share of the experts that process one token, from 0 to 1. It is 1 outside of experts.
    """

    name: str
    shape: tuple[int, ...]
    use: Use
    trainable: bool
    active: float = 1.0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Unit:
    """The smallest part of a model that a mask freezes as a whole.

    Attributes:
        name: `embeddings`, `block 0`, `block 1`, … or `head`.
        modules: Paths of its modules in forward order.
        parameters: The parameters that it owns.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[ParameterInfo, ...]

    @property
    def size(self) -> int:
        """Number of elements in its parameters."""
        return sum(p.size for p in self.parameters)


@dataclass(frozen=True)
class BlockStack:
    """The units of one model in forward order. It holds names and shapes, no tensors.

    Attributes:
        model_name: Class name of the model.
        tower: Path of the module that contains the blocks. Empty for the model itself.
        units: `embeddings`, the blocks, and `head`.
        hidden_size: Width of the hidden state between blocks, at its widest. 0 if unknown.
        shared: Sentences about parameters that are used in more than one place, for display.
        probed: Whether a sample forward pass confirmed the order. The first training batch is checked in any case.
    """

    model_name: str
    tower: str
    units: tuple[Unit, ...]
    hidden_size: int
    shared: tuple[str, ...] = ()
    probed: bool = False

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return len(self.units) - 2

    @property
    def blocks(self) -> tuple[Unit, ...]:
        """The blocks, from the bottom to the top."""
        return self.units[1:-1]

    @property
    def total(self) -> int:
        """Number of elements in all parameters."""
        return sum(unit.size for unit in self.units)

    @cached_property
    def unit_of(self) -> dict[str, str]:
        """Map from the name of a parameter to the name of its unit."""
        return {p.name: unit.name for unit in self.units for p in unit.parameters}

    def frozen(self, mask: FreezeMask) -> frozenset[str]:
        """Return the names of the parameters that `mask` freezes whole.

        Raises:
            RequestError: If a slice of the mask does not fit the model.
            ValueError: If the mask is for a model of another depth.
        """
        whole, sliced = self._whole(mask), self._sliced(mask)
        return whole | {p.name for p, slices in sliced if frozen_size(p, slices) == p.size}

    def slices(self, mask: FreezeMask) -> dict[str, tuple[Slice, ...]]:
        """Return the slices of `mask` by the name of the parameter that they freeze in part.

        Raises:
            RequestError: If a slice of the mask does not fit the model.
            ValueError: If the mask is for a model of another depth.
        """
        frozen = self.frozen(mask)
        return {p.name: slices for p, slices in self._sliced(mask) if p.name not in frozen}

    def with_seen_tokens(self, mask: FreezeMask, tokens: Collection[int]) -> FreezeMask:
        """Return `mask` with a list of rows in place of the rows of unseen tokens.

        Args:
            mask: The mask.
            tokens: The tokens that occur in the training data.
        """
        resolved = []
        for parameter, slices in self._sliced(mask):
            for part in slices:
                if part.choice == "unseen":
                    rows = (row for row in range(parameter.shape[0]) if row not in tokens)
                    resolved.append(Slice.rows(part.unit, f"^{re.escape(parameter.name)}$", rows))
        known = [part for part in mask.slices if part.choice != "unseen"]
        return dataclasses.replace(mask, slices=frozenset((*known, *resolved)))

    def prefix(self, mask: FreezeMask) -> int:
        """Return the number of leading units that do not train under `mask`: frozen by it, by the user, or by PEFT.

        This is what a prefix cache may skip. It is 0 if the embeddings train.
        """
        frozen = self.frozen(mask)
        trains = [any(p.trainable and p.name not in frozen for p in unit.parameters) for unit in self.units[:-1]]
        return trains.index(True) if True in trains else len(trains)

    def trainable_parameters(self, mask: FreezeMask) -> int:
        """Return the number of elements that train under `mask`. Parameters that the user froze do not count.

        Elements that are frozen because they are the smallest are counted as if no other slice froze them too.
        """
        frozen = self.frozen(mask)
        in_part = sum(frozen_size(p, s) for p, s in self._sliced(mask) if p.trainable and p.name not in frozen)
        return self.optimized_parameters(mask) - in_part

    def optimized_parameters(self, mask: FreezeMask) -> int:
        """Return the number of elements for which a step computes a gradient and keeps optimizer state.

        A parameter that trains in part counts whole, because its gradient and its optimizer state have its shape.
        """
        frozen = self.frozen(mask)
        return sum(p.size for u in self.units for p in u.parameters if p.trainable and p.name not in frozen)

    def frozen_fraction(self, mask: FreezeMask) -> float:
        """Return the share of all elements that do not train under `mask`, from 0 to 1."""
        return 1 - self.trainable_parameters(mask) / self.total

    def _whole(self, mask: FreezeMask) -> frozenset[str]:
        """Names of the parameters that are frozen by unit or by name."""
        if mask.depth != self.depth:
            raise ValueError(f"a mask of {mask.depth} blocks does not fit {self.model_name} with {self.depth} blocks")
        parts: dict[str, list[re.Pattern[str]]] = {}
        for unit, pattern in mask.parts:
            parts.setdefault(unit, []).append(re.compile(pattern))
        return frozenset(
            p.name
            for unit in self.units
            for p in unit.parameters
            if unit.name in mask.units or any(pattern.search(p.name) for pattern in parts.get(unit.name, ()))
        )

    def _sliced(self, mask: FreezeMask) -> list[tuple[ParameterInfo, tuple[Slice, ...]]]:
        """The parameters that are named by slices, with these."""
        if not mask.slices:
            return []
        whole = self._whole(mask)
        of_unit: dict[str, list[Slice]] = {}
        for part in mask.slices:
            of_unit.setdefault(part.unit, []).append(part)
        unknown = set(of_unit) - {unit.name for unit in self.units}
        if unknown:
            raise RequestError(f"{self.model_name} has no unit {min(unknown)!r} of which a part could be frozen.")
        found = [
            (p, tuple(s for s in of_unit[unit.name] if s.has_axis(p.shape) and re.search(s.pattern, p.name)))
            for unit in self.units
            if unit.name in of_unit
            for p in unit.parameters
            if p.name not in whole
        ]
        for parameter, own in found:
            for part in own:
                if part.ranges and part.ranges[-1][1] > part.length(parameter.shape):
                    raise RequestError(
                        f"{part.what} cannot be frozen in {parameter.name}: it has {part.length(parameter.shape):,} "
                        f"of them, numbered from 0."
                    )
        return [(parameter, own) for parameter, own in found if own]


def frozen_size(parameter: ParameterInfo, slices: tuple[Slice, ...]) -> int:
    """Number of elements that one of the slices freezes. The size of the parameter only if none trains for certain."""
    sizes = [part.size(parameter.shape) for part in slices]
    if len(slices) == 1 or max(sizes) == parameter.size:
        return max(sizes)
    frozen = np.zeros(parameter.shape, dtype=bool)
    undecided = 0  # by the shape
    for part, size in zip(slices, sizes, strict=True):
        if part.choice in ("smallest", "unseen"):
            undecided += size
        else:
            frozen |= part.frozen(parameter.name, parameter.shape)
    known = int(frozen.sum())
    return min(known + undecided, parameter.size - 1) if undecided else known
