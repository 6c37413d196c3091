"""Predictions by the cost model: the time of a run relative to full fine-tuning, and the time left for a study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..model.blocks import BlockStack
from ..model.cost import StepShape, run_ratio
from ..model.timeline import Timeline
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task


def step_shape(task: Task, settings: StudySettings) -> StepShape:
    """Return the mean shape of a training step.

    Args:
        task: The task. A batch is padded to its longest example, or to `max_length` if the task says so.
        settings: The batch size and the sampling.
    """
    lengths = [len(ids) for ids in task.train["input_ids"]]
    examples = min(settings.batch_size, len(lengths))
    if task.pad_to_max_length:
        return StepShape(examples=examples, tokens=task.max_length)
    order = batch_order(lengths, settings)
    longest = [max(lengths[i] for i in order[at : at + examples]) for at in range(0, len(order), examples)]
    return StepShape(examples=examples, tokens=round(sum(longest) / len(longest)))


def batch_order(lengths: Sequence[int], settings: StudySettings) -> list[int]:
    """Return an order of the training examples, as the Trainer draws one for each pass.

    Args:
        lengths: The length of each example in tokens.
        settings: The batch size and the sampling.
    """
    from transformers.trainer_pt_utils import get_length_grouped_indices

    draw = torch.Generator().manual_seed(0)
    if not settings.groups_by_length:
        shuffled: list[int] = torch.randperm(len(lengths), generator=draw).tolist()
        return shuffled
    examples = min(settings.batch_size, len(lengths))
    grouped: list[int] = get_length_grouped_indices(lengths, examples, generator=draw)  # type: ignore[no-untyped-call]
    return grouped


def share_seen_again(epochs: float) -> float:
    """Return the share of the examples of a run that occurred earlier in it: all but those of the first epoch."""
    return 1 - 1 / epochs if epochs > 1 else 0.0


def predicted_ratio(
    stack: BlockStack, timeline: Timeline, steps: int, shape: StepShape, seen_again: float = 0.0
) -> float:
    """Return the predicted time of a run as a multiple of that of full fine-tuning.

    Args:
        stack: The units of the model.
        timeline: The masks of the run.
        steps: The number of steps of the run.
        shape: The shape of a step.
        seen_again: The share of the examples for which a cache skips the frozen prefix.
    """
    run = run_ratio(stack, timeline, steps, shape)
    if not seen_again:
        return run
    return (1 - seen_again) * run + seen_again * run_ratio(stack, timeline, steps, shape, cached=True)


class RemainingTime:
    """Estimates the time left for a study from the predicted costs of its runs and the time that has passed.

    Args:
        costs: The predicted cost of each run, in any common unit.
        now: A clock in seconds.

    Example:
        >>> clock = iter([0.0, 30.0, 30.0]).__next__
        >>> left = RemainingTime([1.0, 0.5], now=clock)  # at 0 s
        >>> left.run_ended()  # the first run ends at 30 s
        >>> left.seconds()
        15.0
    """

    def __init__(self, costs: Sequence[float], now: Callable[[], float] = time.monotonic) -> None:
        self._costs = list(costs)
        self._now = now
        self._began = now()
        self._done = 0.0
        self._index = 0
        self._ended_at = self._began
        self._share = 0.0

    def stepped(self, done: int, total: int) -> None:
        """Record that `done` of the `total` steps of the current run are done."""
        self._share = done / max(1, total)

    def run_ended(self) -> None:
        """Record that the current run has ended or failed."""
        if self._index == len(self._costs):  # a run that was not foreseen, as in a quick search
            self._costs.append(self._done / self._index if self._index else 1.0)
        self._done += self._costs[self._index]
        self._index += 1
        self._share = 0.0
        self._ended_at = self._now()

    def seconds(self) -> float | None:
        """Return the estimated seconds until the last run ends, or None before the first step."""
        current = self._costs[self._index] * self._share if self._index < len(self._costs) else 0.0
        # Before the first step of a run, time counts up to the end of the last run, with its evaluation on the test
        # split.
        elapsed = (self._now() if current else self._ended_at) - self._began
        done = self._done + current
        if done <= 0 or elapsed <= 0:
            return None
        return max(0.0, sum(self._costs) - done) * elapsed / done
