"""Schedules: a frozen prefix that grows or shrinks with the progress of the run alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.mask import FreezeMask
from .arguments import check_number
from .base import Policy, Schedule, Trial
from .decision import Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


class PrefixSchedule(Schedule):
    """Base class of schedules for the number of frozen leading blocks. The embeddings freeze with the first block."""

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return self._mask(self.blocks(0.0, 0.0, stack.depth), stack.depth)

    def at(self, step: int, depth: int, total_steps: int, steps_per_epoch: float) -> FreezeMask:
        return self._mask(self.blocks(step / total_steps, step / steps_per_epoch, depth), depth)

    def why(self, signals: Signals) -> str:
        return f"{self} at {signals.step / signals.total_steps:.0%} of the run, epoch {signals.epoch:.2g}"

    @abstractmethod
    def blocks(self, done: float, epoch: float, depth: int) -> int:
        """Return the number of frozen blocks.

        Args:
            done: Fraction of the run that is over.
            epoch: Epochs that are over.
            depth: Number of blocks of the model.
        """

    @staticmethod
    def _mask(blocks: int, depth: int) -> FreezeMask:
        return FreezeMask.first(depth, blocks) if blocks else FreezeMask(depth)


@register_policy
@dataclass(frozen=True)
class LinearSchedule(PrefixSchedule):
    """Freezes a linearly growing fraction of the blocks.

    Reference: Layer Freezing in MosaicML Composer (`composer.algorithms.LayerFreezing`).

    Args:
        start_at: Fraction of the run at which the growth begins.
        level: Fraction of the blocks that is frozen at the end of the run.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "linear"
    start_at: float = 0.0
    level: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.name, "start_at", self.start_at, 0, 1)
        check_number(self.name, "level", self.level, 0, 1)

    def blocks(self, done: float, epoch: float, depth: int) -> int:
        share = 0.0 if self.start_at >= 1 else max(0.0, (done - self.start_at) / (1 - self.start_at))
        return min(depth, math.floor(share * self.level * depth + 1e-9))

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        start_at = round(trial.suggest_float("linear start_at", 0.0, 0.5, step=0.1), 1)
        return cls(start_at=start_at, level=round(trial.suggest_float("linear level", 0.2, 1.0, step=0.2), 1))


@register_policy
@dataclass(frozen=True)
class GeometricSchedule(PrefixSchedule):
    """Freezes a fixed fraction of the blocks that still train, every few epochs, rounded half up.

    Reference: He et al. 2021, "PipeTransformer: Automated Elastic Pipelining for Distributed Training of Large-scale
    Models" (arXiv 2102.03161), the freezing schedule alone.

    Args:
        alpha: Fraction of the trainable blocks that freezes, above 0 and up to 1.
        every: Epochs between changes.

    Raises:
        RequestError: When an argument is out of range.

    Example:
        >>> [GeometricSchedule().blocks(0.0, float(epoch), 12) for epoch in (1, 2, 3, 4, 5)]
        [4, 7, 9, 10, 11]
    """

    name: ClassVar[str] = "geometric"
    alpha: float = 0.333
    every: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.name, "alpha", self.alpha, 0, 1, open_low=True)
        check_number(self.name, "every", self.every, 0, open_low=True)

    def blocks(self, done: float, epoch: float, depth: int) -> int:
        frozen = 0
        for _ in range(min(math.floor(epoch / self.every + 1e-9), 1000)):
            grown = math.floor(frozen + self.alpha * (depth - frozen) + 0.5)
            if grown == frozen:
                break
            frozen = grown
        return frozen


@register_policy
@dataclass(frozen=True)
class GradualUnfreezing(PrefixSchedule):
    """Starts with the head alone and unfreezes blocks from the top; the embeddings unfreeze with the first block.

    Reference: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (arXiv 1801.06146).

    Args:
        every: Epochs between changes.
        step: Number of blocks that unfreeze at each change.

    Raises:
        RequestError: When an argument is out of range.
    """

    name: ClassVar[str] = "gradual-unfreezing"
    every: float = 1.0
    step: int = 1

    def __post_init__(self) -> None:
        check_number(self.name, "every", self.every, 0, open_low=True)
        check_number(self.name, "step", self.step, 1, whole=True)

    def blocks(self, done: float, epoch: float, depth: int) -> int:
        return max(0, depth - self.step * math.floor(epoch / self.every + 1e-9))

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        return cls(every=round(trial.suggest_float("gradual-unfreezing every", 0.2, 1.0, step=0.2), 1))
