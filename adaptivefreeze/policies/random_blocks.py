"""Policies that draw the trainable blocks at random, again and again: LayerOut and LISA."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import FreezeMask
from .arguments import check_number
from .base import Schedule
from .decision import Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass(frozen=True)
class LayerOut(Schedule):
    """Freezes each block with a given probability, drawn anew each epoch. Has no state.

    Reference: Goutam et al. 2020, "LayerOut: Freezing Layers in Deep Neural Networks" (SN Computer Science 1, 295).

    Args:
        probability: Probability that a block is frozen.
        every: Epochs between draws.
        seed: Seed of the draws.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "layerout"
    probability: float = 0.5
    every: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.name, "probability", self.probability, 0, 1)
        check_number(self.name, "every", self.every, 0, open_low=True)
        check_number(self.name, "seed", self.seed, 0, whole=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return self._drawn(0, stack.depth)

    def at(self, step: int, depth: int, total_steps: int, steps_per_epoch: float) -> FreezeMask:
        return self._drawn(math.floor(step / (self.every * steps_per_epoch) + 1e-9), depth)

    def why(self, signals: Signals) -> str:
        return f"drawn with seed {self.seed} for epoch {signals.epoch:.3g}"

    def _drawn(self, turn: int, depth: int) -> FreezeMask:
        rng = random.Random(f"{self.seed}/{turn}")
        return FreezeMask(depth, blocks=[i for i in range(depth) if rng.random() < self.probability])


@register_policy
@dataclass(frozen=True)
class Lisa(Schedule):
    """Trains embeddings, head and a few random blocks, drawn anew every few steps. Has no state.

    Reference: Pan et al. 2024, "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model
    Fine-Tuning" (arXiv 2403.17919).

    Args:
        blocks: Number of trainable blocks.
        steps: Steps between draws.
        seed: Seed of the draws.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "lisa"
    blocks: int = 2
    steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.name, "blocks", self.blocks, 1, whole=True)
        check_number(self.name, "steps", self.steps, 1, whole=True)
        check_number(self.name, "seed", self.seed, 0, whole=True)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return self._drawn(0, stack.depth)

    def at(self, step: int, depth: int, total_steps: int, steps_per_epoch: float) -> FreezeMask:
        return self._drawn(step // self.steps, depth)

    def why(self, signals: Signals) -> str:
        return f"drawn with seed {self.seed} for step {signals.step}"

    def _drawn(self, turn: int, depth: int) -> FreezeMask:
        train = random.Random(f"{self.seed}/{turn}").sample(range(depth), min(self.blocks, depth))
        return FreezeMask(depth, blocks=set(range(depth)) - set(train))
