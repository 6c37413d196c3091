"""BlockRates: a learning rate per block, written down, or falling from the head to the embeddings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from .base import Policy
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

_DECAY = "decay"
_UNIT = re.compile(rf"({EMBEDDINGS}|{HEAD}|{_DECAY})|(\d{{1,4}})(?:-(\d{{1,4}}))?", re.ASCII)


@register_policy
@dataclass(frozen=True)
class BlockRates(Policy):
    """Multiplies the learning rate of each unit by a factor for the whole run. A unit with factor 0 is frozen.

    With `decay=D` the factor of the last block is D, that of the block below it D², and so on; the embeddings come
    last, and the head keeps the learning rate (layer-wise learning-rate decay, LLRD). Factors of single units take
    precedence. Without a decay, units that are not named keep the learning rate. The embeddings follow block 0 where
    that is named and they are not.

    References: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (arXiv
    1801.06146), for rates that fall by layer; Clark et al. 2020, "ELECTRA" (arXiv 2003.10555), for this form of it;
    Shen et al. 2021, "Partial Is Better Than All" (arXiv 2102.03983), for a factor per layer, 0 included.

    Args:
        factors: `UNIT=FACTOR` with commas between them. A unit is `embeddings`, `head`, the number of a block, or a
            range of blocks such as `0-3`; `decay` stands for all units.

    Raises:
        RequestError: When `factors` has another form, a factor is negative or not finite, a unit is named twice, or
            the model has no such block.

    Example:
        >>> str(BlockRates("0-1=0,2=0.5")), str(BlockRates.of({"embeddings": 0, "block 0": 0, "block 3": 0.1}))
        ('rates:0-1=0,2=0.5', 'rates:0=0,3=0.1')
    """

    name: ClassVar[str] = "rates"
    factors: str

    def __post_init__(self) -> None:
        units = [unit for unit, _ in self._parsed()]
        twice = sorted({str(unit) for unit in units if units.count(unit) > 1})
        if twice:
            raise RequestError(f"{self.name}: {twice[0]} has two factors in {self.factors[:60]!r}; give one.")

    @classmethod
    def of(cls, factors: Mapping[str, float]) -> BlockRates:
        """Return the policy with these factors by unit name: `embeddings`, `block 0`, …, `head`.

        Raises:
            RequestError: When `factors` is empty, names something else, or has a factor that is out of range.
        """
        blocks: dict[int, float] = {}
        words = []
        for unit, factor in factors.items():
            if match := re.fullmatch(r"block (\d+)", unit):
                blocks[int(match[1])] = factor
            elif not (unit == EMBEDDINGS and factors.get(block_name(0)) == factor):
                words.append(f"{unit}={factor:.6g}")
        # Consecutive blocks with the same factor differ from their place in this order by the same number.
        runs = groupby(enumerate(sorted(blocks)), key=lambda item: (item[1] - item[0], blocks[item[1]]))
        for (_, factor), run in runs:
            numbers = [number for _, number in run]
            words.append(f"{numbers[0]}{f'-{numbers[-1]}' if len(numbers) > 1 else ''}={factor:.6g}")
        return cls(",".join(words))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        frozen = {unit for unit, factor in self.of_units(stack.depth).items() if factor == 0}
        return FreezeMask(
            stack.depth,
            embeddings=EMBEDDINGS in frozen,
            blocks=(i for i in range(stack.depth) if block_name(i) in frozen),
            head=HEAD in frozen,
        )

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        return {unit: factor for unit, factor in self.of_units(stack.depth).items() if factor not in (0, 1)}

    def of_units(self, depth: int) -> dict[str, float]:
        """Return the factor of each unit of a model with `depth` blocks.

        Raises:
            RequestError: When a block is named that the model does not have.
        """
        given = dict(self._parsed())
        outside = [unit for unit in given if isinstance(unit, int) and unit >= depth]
        if outside:
            raise RequestError(
                f"{self.name}: block {outside[0]} is out of range, this model has blocks 0 to {depth - 1}."
            )
        decay = given.get(_DECAY, 1.0)
        factors = {block_name(i): given.get(i, decay ** (depth - i)) for i in range(depth)}
        below = given.get(0, decay ** (depth + 1))
        return {EMBEDDINGS: given.get(EMBEDDINGS, below), **factors, HEAD: given.get(HEAD, 1.0)}

    def _parsed(self) -> Iterator[tuple[str | int, float]]:
        for word in str(self.factors).split(","):
            unit, equals, number = word.partition("=")
            match, factor = _UNIT.fullmatch(unit.strip()), _number(number)
            if not equals or not match or not 0 <= factor < math.inf:
                raise RequestError(
                    f"{self.name}: write UNIT=FACTOR, as in rates:0-1=0,2=0.5 or rates:decay=0.9, with a factor of 0 "
                    f"or more for embeddings, head or blocks, not {word[:40]!r}."
                )
            if match[1]:
                yield match[1], factor
            elif int(match[3] or match[2]) < int(match[2]):
                raise RequestError(f"{self.name}: {unit.strip()} is no range of blocks; the first comes first.")
            else:
                yield from ((i, factor) for i in range(int(match[2]), int(match[3] or match[2]) + 1))


def _number(text: str) -> float:
    """The number in a text; NaN, which is in no range, if there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
