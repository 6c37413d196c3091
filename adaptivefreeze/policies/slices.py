"""Static policies that freeze parts of parameters: channels, dimensions, single weights, rows of the embeddings."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from ..model.slices import Slice, ranges_of
from .arguments import check_choice, check_number
from .base import Policy
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack, ParameterInfo, Unit

_SEEN = "seen"


@register_policy
@dataclass(frozen=True)
class Semifreddo(Policy):
    """Freezes a fixed share of the output channels of every layer; the head trains.

    The first rows of every matrix and bias in the blocks are frozen, and the first columns of the embedding tables.
    Unlike in the paper, the frozen channels also read trainable ones, so their outputs do not stay the same: nothing
    can be precomputed.

    Reference: Isikdogan et al. 2020, "SemifreddoNets: Partially Frozen Neural Networks for Efficient Computer Vision
    Systems" (arXiv 2006.06888).

    Args:
        share: Share of the channels that are frozen, above 0 and up to 1.

    Raises:
        RequestError: When `share` is out of range.

    Example:
        >>> str(Semifreddo(0.5))
        'semifreddo:0.5'
    """

    name: ClassVar[str] = "semifreddo"
    share: float

    def __post_init__(self) -> None:
        check_number(self.name, "share", self.share, 0, 1, open_low=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        embeddings = stack.units[0]
        slices = [Slice(block_name(i), "", 0, "first", share=self.share) for i in range(stack.depth)]
        for parameter in embeddings.parameters:
            axis = 1 if _is_table(parameter) else 0
            slices.append(Slice(EMBEDDINGS, _exactly(parameter), axis, "first", share=self.share))
        return FreezeMask(stack.depth, slices=slices)


@register_policy
@dataclass(frozen=True)
class FewDimensions(Policy):
    """Trains a few dimensions of the hidden state, and the head.

    In the embeddings and the blocks, each parameter with an axis of the hidden width trains at the selected numbers of
    that axis alone: rows if its first axis has this width, else columns. Its other parameters are frozen. In the paper
    the classifier reads the selected dimensions alone and the model trains whole; here the classifier reads all.

    Reference: Fukuhata and Kano 2025, "Few Dimensions are Enough: Fine-tuning BERT with Selected Dimensions Revealed
    Its Redundant Nature" (arXiv 2504.04966).

    Args:
        count: Number of dimensions that train.
        seed: Seed of the draw of these dimensions.

    Raises:
        RequestError: When `count` is below 1 or above the hidden width, or the hidden width is unknown.

    Example:
        >>> str(FewDimensions(3))
        'dimensions:3'
    """

    name: ClassVar[str] = "dimensions"
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.name, "count", self.count, 1, whole=True)
        check_number(self.name, "seed", self.seed, 0, whole=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        width = stack.hidden_size
        if not width:
            raise RequestError(f"{self.name}: the width of the hidden state of {stack.model_name} is not known.")
        if self.count > width:
            raise RequestError(f"{self.name}: this model has {width} dimensions; give 1 to {width}, not {self.count}.")
        trained = random.Random(self.seed).sample(range(width), self.count)
        frozen = ranges_of(i for i in range(width) if i not in trained)
        slices = []
        for unit, parameter in _below_head(stack):
            axes = [i for i, size in enumerate(parameter.shape) if size == width]
            if _is_table(parameter):
                axes = [i for i in axes if i > 0]  # its rows are tokens
            if axes:
                slices.append(Slice(unit.name, _exactly(parameter), axes[0], ranges=frozen))
            else:
                slices.append(Slice(unit.name, _exactly(parameter), None, "first", share=1.0))
        return FreezeMask(stack.depth, slices=[part for part in slices if part.ranges or part.share])


@register_policy
@dataclass(frozen=True)
class WeightFreezing(Policy):
    """Freezes a share of the single weights of fully connected layers, as a regularizer.

    Frozen weights keep their values. The published code also sets them to zero, which suits a layer that starts from
    random weights and not one that is pretrained.

    Reference: Miao and Zhao 2023, "Weight Freezing: A Regularization Approach for Fully Connected Layers with an
    Application in EEG Classification" (arXiv 2306.05775). There the layer is the classifier, and the choice random.

    Args:
        share: Share of the weights of each matrix that are frozen, above 0 and below 1.
        choice: `random`, `smallest` (in absolute value, when training starts) or `first` (row by row).
        units: Whose matrices: `head`, `blocks`, or `all` for both. Biases and embedding tables train.
        seed: Seed of the random choice.

    Raises:
        RequestError: When an argument is out of range, or these units have no matrix.

    Example:
        >>> str(WeightFreezing(0.3, choice="smallest"))
        'weight-freezing:share=0.3,choice=smallest'
    """

    name: ClassVar[str] = "weight-freezing"
    share: float = 0.5
    choice: str = "random"
    units: str = "head"
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.name, "share", self.share, 0, 1, open_low=True)
        check_choice(self.name, "choice", self.choice, ("random", "smallest", "first"))
        check_choice(self.name, "units", self.units, ("head", "blocks", "all"))
        check_number(self.name, "seed", self.seed, 0, whole=True)
        if self.share == 1:
            raise RequestError(f"{self.name}: share must be below 1, or nothing of a matrix trains.")

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        units = {"head": stack.units[-1:], "blocks": stack.blocks, "all": stack.units[1:]}[self.units]
        found = [(unit, p) for unit in units for p in unit.parameters if len(p.shape) == 2 and not _is_table(p)]
        if not found:
            raise RequestError(f"{self.name}: {self.units} of {stack.model_name} has no matrix to freeze weights of.")
        choice = next(kind for kind in ("random", "smallest", "first") if kind == self.choice)
        slices = (
            Slice(unit.name, _exactly(p), None, choice, share=self.share, seed=self.seed if choice == "random" else 0)
            for unit, p in found
        )
        return FreezeMask(stack.depth, slices=slices)


@register_policy
@dataclass(frozen=True)
class EmbeddingRows(Policy):
    """Trains some rows of the table of token embeddings, and everything else.

    By default these are the tokens that occur in the training data. The others get no gradient in any case, but weight
    decay shrinks them, so that the model changes for texts that it was not trained on.

    Source: ranges of rows in `unfrozen_parameters` of axolotl, which masks gradients alone.

    Args:
        rows: Rows that train: `seen`, or ranges with the last row included, such as `0-999+1200`.

    Raises:
        RequestError: When `rows` is neither, or the model has no such rows. When training starts, if `rows` is `seen`
            and the tokens are not known: outside of a Trainer, or with a stream.

    Example:
        >>> EmbeddingRows.of([5, 6, 7, 9])
        EmbeddingRows(rows='5-7+9')
    """

    name: ClassVar[str] = "embedding-rows"
    rows: str = _SEEN

    def __post_init__(self) -> None:
        if self.rows != _SEEN:
            self._ranges()

    @classmethod
    def of(cls, tokens: Iterable[int]) -> EmbeddingRows:
        """Return the policy that trains the rows of these tokens."""
        return cls("+".join(f"{a}-{b - 1}" if b - a > 1 else str(a) for a, b in ranges_of(tokens)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        tables = [p for p in stack.units[0].parameters if _is_table(p)]
        if not tables:
            raise RequestError(f"{self.name}: the embeddings of {stack.model_name} have no table of tokens.")
        table = max(tables, key=lambda p: p.shape[0])
        if self.rows == _SEEN:
            return FreezeMask(stack.depth, slices=[Slice(EMBEDDINGS, _exactly(table), 0, "unseen")])
        trained = {row for first, last in self._ranges() for row in range(first, last + 1)}
        if max(trained) >= table.shape[0]:
            raise RequestError(
                f"{self.name}: row {max(trained)} is out of range, {table.name} has rows 0 to {table.shape[0] - 1}."
            )
        frozen = Slice.rows(EMBEDDINGS, _exactly(table), (i for i in range(table.shape[0]) if i not in trained))
        return FreezeMask(stack.depth, slices=[frozen] if frozen.ranges else ())

    def _ranges(self) -> list[tuple[int, int]]:
        found = []
        for word in str(self.rows).split("+"):
            match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word, re.ASCII)
            if not match or int(match[2] or match[1]) < int(match[1]):
                raise RequestError(
                    f"{self.name}: rows must be '{_SEEN}' or ranges such as 0-999+1200, not {self.rows[:40]!r}."
                )
            found.append((int(match[1]), int(match[2] or match[1])))
        return found


def _below_head(stack: BlockStack) -> Iterator[tuple[Unit, ParameterInfo]]:
    return ((unit, p) for unit in stack.units if unit.name != HEAD for p in unit.parameters)


def _is_table(parameter: ParameterInfo) -> bool:
    return parameter.use in ("lookup", "tied")


def _exactly(parameter: ParameterInfo) -> str:
    """A pattern that this parameter alone matches."""
    return f"^{re.escape(parameter.name)}$"
