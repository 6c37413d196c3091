"""What a run is predicted to cost: the shape of its steps, and their time against full fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..model.blocks import BlockStack
from ..model.cost import StepShape, run_ratio
from ..model.timeline import Timeline
from .settings import StudySettings

if TYPE_CHECKING:
    from ..data import Task


def step_shape(task: Task, settings: StudySettings) -> StepShape:
    """The mean shape of a training step: batches are padded to their longest example, or all to `max_length`."""
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = [len(ids) for ids in task.train["input_ids"]]
    examples = min(settings.batch_size, len(lengths))
    if task.pad_to_max_length:
        return StepShape(examples=examples, tokens=task.max_length)
    draw = torch.Generator().manual_seed(0)
    order: list[int] = (
        get_length_grouped_indices(lengths, examples, generator=draw)  # type: ignore[no-untyped-call]
        if settings.groups_by_length
        else torch.randperm(len(lengths), generator=draw).tolist()
    )
    longest = [max(lengths[i] for i in order[at : at + examples]) for at in range(0, len(order), examples)]
    return StepShape(examples=examples, tokens=round(sum(longest) / len(longest)))


def share_seen_again(epochs: float) -> float:
    """The share of a run's examples that were seen before in it: none in the first epoch, all after it."""
    return 1 - 1 / epochs if epochs > 1 else 0.0


def predicted_ratio(
    stack: BlockStack, timeline: Timeline, steps: int, shape: StepShape, seen_again: float = 0.0
) -> float:
    """Predicted time of a run of `steps` steps / that of full fine-tuning.

    `seen_again`: the share of the examples for which a cache skips the frozen prefix.
    """
    run = run_ratio(stack, timeline, steps, shape)
    return (
        run
        if not seen_again
        else ((1 - seen_again) * run + seen_again * run_ratio(stack, timeline, steps, shape, cached=True))
    )
