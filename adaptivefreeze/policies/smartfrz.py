"""SmartFRZ: freezes blocks by a predictor that attends to the history of their weights (Li et al. 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import FreezeMask, block_name
from .arguments import check_flag, check_number, intervals
from .attention import AttentionPredictor, History, read_predictor
from .base import AdaptivePolicy
from .decision import Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass
class SmartFRZ(AdaptivePolicy):
    """Freezes the blocks that a trained predictor classifies as converged.

    At each decision point, a fixed sample of each trainable block's weights is compared with the start of training.
    Once there is a history of `window` changes between decision points, an attention network predicts the probability
    that the block's representations are already those of the finished model. From `threshold` on, the block freezes
    for the rest of the run. Each block is judged on its own, as in the paper. The last block never freezes; the
    embeddings freeze with the first block.

    Reference: Li et al. 2024, "SmartFRZ: An Efficient Training Framework using Attention-Based Layer Freezing" (arXiv
    2401.16720).

    Args:
        threshold: Probability from which a block freezes, above 0 and up to 1.
        intervals: Decision points per epoch.
        window: Length of the history that the predictor needs.
        prefix: Freeze a block only when all blocks below it are frozen, which saves the most time.
        predictor: Path of a JSON file written by `experiments/smartfrz/train_predictor.py`, read when the policy is
            created. By default the predictor that comes with the package.

    Raises:
        RequestError: When an argument is out of range, or the predictor cannot be read.
    """

    name: ClassVar[str] = "smartfrz"
    threshold: float = 0.5
    intervals: float = 10
    window: int = 5
    prefix: bool = False
    predictor: str = ""
    _network: AttentionPredictor = field(init=False, repr=False, compare=False)
    _histories: dict[str, History] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.name, "threshold", self.threshold, 0, 1, open_low=True)
        check_number(self.name, "intervals", self.intervals, 0, open_low=True)
        check_number(self.name, "window", self.window, 1, whole=True)
        check_flag(self.name, "prefix", self.prefix)
        if not isinstance(self.predictor, str) or "," in self.predictor:
            raise RequestError(f"{self.name}: predictor must be a path without a comma, not {self.predictor!r}.")
        self._network = read_predictor(self.predictor)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"weight_samples"})

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(frozenset(intervals(self.intervals, total_steps, steps_per_epoch)))

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def update(self, signals: Signals) -> Decision | None:
        assert signals.weight_samples is not None
        if undefined := signals.non_finite():
            return undefined
        mask, depth = signals.mask, signals.mask.depth
        found = self._judge(mask, signals.weight_samples)
        if not found:
            return None
        finished = {index for index, probability in found.items() if probability >= self.threshold}
        if self.prefix:
            finished = set(takewhile((finished | mask.blocks).__contains__, range(depth - 1)))
        shown = " ".join(f"{found[i]:.2f}".removeprefix("0") if i in found else "–" for i in range(depth - 1))
        return Decision(
            FreezeMask(depth, embeddings=0 in finished, blocks=finished) | mask,
            f"finished with probability [{shown}], threshold {self.threshold:g}",
        )

    def _judge(self, mask: FreezeMask, samples: Mapping[str, Any]) -> dict[int, float]:
        """Extend the histories; return the probabilities of trainable blocks with a full history, by block index."""
        found = {}
        for index in range(mask.depth - 1):
            name = block_name(index)
            if index in mask.blocks:
                self._histories.pop(name, None)
                continue
            history = self._histories.setdefault(name, History())
            history.add(samples[name], self.window)
            if len(history.rows) == self.window:
                found[index] = self._network.probability(history.rows)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {name: dataclasses.asdict(history) for name, history in self._histories.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._histories = {
            name: History([list(row) for row in kept["rows"]], list(kept["last"]), list(kept["step"]))
            for name, kept in state.items()
        }
