"""SmartFRZ: freeze the blocks that an attention network, looking at the history of their weights, calls finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..model.mask import FreezeMask, block_name
from .arguments import check_number, intervals
from .attention import AttentionPredictor, History, read_predictor
from .base import AdaptivePolicy, Decision, DecisionPoints, Signals
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass
class SmartFRZ(AdaptivePolicy):
    """Freezes the blocks that a trained predictor calls finished (arXiv 2401.16720).

    At each moment, `intervals` of them an epoch, a few values of each block that trains are looked at. As soon as
    there is a history of `window` steps between moments, the predictor gives the probability that the block's view
    of the data is already that of the finished model; from `threshold` on the block freezes, for good. Each block is
    judged by itself, as published; with `prefix` one freezes only when all before it are frozen, which is what saves
    the most time. The last block never freezes, the embeddings freeze with the first block.

    `predictor`: path of a JSON file that experiments/smartfrz/train_predictor.py wrote, read here and now; the one
    that comes with the package when left out.

    Raises `RequestError` for values out of range and for a predictor that cannot be read.
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
        if not isinstance(self.prefix, bool):
            raise RequestError(f"{self.name}: prefix must be true or false, not {self.prefix!r}.")
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
        """Takes the moment down; index of each block that trains and has a whole history -> its probability."""
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
