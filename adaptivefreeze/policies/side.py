"""Side tuning: freezes all blocks, and trains a small network beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestError
from ..model.mask import FreezeMask
from .base import Policy, Trial
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

_WIDTHS = (64, 96, 128, 192)


@register_policy
@dataclass(frozen=True)
class SideTuning(Policy):
    """Freezes the embeddings and all blocks, and trains a side network that reads the outputs of some blocks.

    `FreezeCallback` adds the network to the model (`adaptivefreeze.add_side_network`). With the prefix cache the model
    itself runs only once for each example. Choose another policy where each example is seen only once or twice, or
    where the hidden states of all examples fit neither into memory nor on disk.

    References: Sung et al. 2022, "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning"
    (arXiv 2206.06522); Ouyang et al. 2024, "Pluto and Charon: A Time and Memory Efficient Collaborative Edge AI
    Framework for Personal LLMs Fine-Tuning" (arXiv 2408.10746), for training on stored hidden states.

    Args:
        width: Width of the network, a multiple of 32.
        every: Read every so many blocks, counted down from the last.
        dropout: Probability that a dimension of what is read is set to zero, in all tokens of an example.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "side"
    width: int = 96
    every: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 32 or self.width % 32:
            raise RequestError(f"side: width must be a multiple of 32, not {self.width!r}.")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise RequestError(f"side: every must be a whole number, 1 or more, not {self.every!r}.")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise RequestError(f"side: dropout must lie in [0, 1), not {self.dropout!r}.")

    @property
    def side(self) -> SideTuning:
        return self

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth, embeddings=True, blocks=range(stack.depth))

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        return cls(
            trial.suggest_categorical("side.width", _WIDTHS), trial.suggest_int("side.every", 1, max(1, depth // 2))
        )
