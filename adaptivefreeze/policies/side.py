"""Side tuning: freezes all blocks, and trains a small network beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestError
from ..model.mask import HEAD, FreezeMask
from .arguments import check_number
from .base import Policy, SideShape, Trial
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack

_WIDTHS = (96, 128, 192, 256)


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
        layers: Number of its layers.
        every: Read every so many blocks, counted down from the last.
        dropout: Probability that a dimension of what is read is set to zero, in all tokens of an example.
        rate: Factor on the learning rate. The network starts from random weights, so it learns best at about 15 times
            the learning rate of full fine-tuning.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "side"
    width: int = 192
    layers: int = 2
    every: int = 2
    dropout: float = 0.1
    rate: float = 15.0

    def __post_init__(self) -> None:
        check_number(self.name, "width", self.width, 32, whole=True)
        if self.width % 32:
            raise RequestError(f"{self.name}: width must be a multiple of 32, not {self.width!r}.")
        check_number(self.name, "layers", self.layers, 1, whole=True)
        check_number(self.name, "every", self.every, 1, whole=True)
        check_number(self.name, "dropout", self.dropout, 0, 0.99)
        check_number(self.name, "rate", self.rate, 0, open_low=True)

    @property
    def side(self) -> SideShape:
        return SideShape(self.width, self.layers, self.every, self.dropout)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth, embeddings=True, blocks=range(stack.depth))

    def initial_learning_rates(self, stack: BlockStack) -> Mapping[str, float]:
        return {HEAD: self.rate}

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        width = trial.suggest_categorical("side.width", _WIDTHS)
        return cls(width, every=trial.suggest_int("side.every", 1, max(1, depth // 2)))
