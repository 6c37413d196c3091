"""Deciding: one run of an adaptive policy. When it is asked, what is measured for it, and what has come in so far."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.mask import FreezeMask
from ..policies import AdaptivePolicy, Decision, Signals
from ..signals import Watch


class Deciding:
    """Asks `policy` at its moments in a run of `total_steps` optimizer steps, `epoch_steps` of them an epoch.

    `accumulation`: batches a step. `evaluation_sets`: validation sets, each of which ends in an event of its own.
    `scaled`: whether AMP scales the loss, and leaves a step out now and then.
    """

    def __init__(
        self,
        policy: AdaptivePolicy,
        model: nn.Module,
        stack: BlockStack,
        *,
        total_steps: int,
        epoch_steps: float,
        accumulation: int = 1,
        evaluation_sets: int = 1,
        scaled: bool = False,
    ) -> None:
        self.policy = policy
        self.decision_points = policy.decision_points(total_steps, epoch_steps)
        self.watch = Watch(policy.needs, model, stack, accumulation=accumulation)
        self._stack = stack
        self._total_steps = total_steps
        self._epoch_steps = epoch_steps
        self._sets = evaluation_sets
        self._scaled = scaled
        self._gradients_of: int | None = None  # the step whose gradients were seen
        self._metrics: dict[str, float] = {}
        self._evaluated = 0

    def begins(self, step: int) -> None:
        """The step after `step` begins."""
        self.watch.begin(self._due(step))

    def gradients_ready(self, step: int) -> None:
        """The gradients of the step after `step` are complete, and nobody has clipped them yet."""
        if self._gradients_of != step:
            self._gradients_of = step
            self.watch.gradients(self._due(step))

    def gradients_missed(self, step: int) -> bool:
        """Whether the step after `step` is about to be taken with gradients that were needed and never seen."""
        return self.watch.needs_gradients and not self._scaled and self._gradients_of != step

    def stepped(self, step: int) -> None:
        """The optimizer has taken the step after `step`."""
        if not (self.watch.needs_gradients and self._gradients_of != step):
            self.watch.stepped(self._due(step))

    def ended(self) -> None:
        """A step has ended, and nobody was asked yet."""
        self.watch.end()

    def evaluated(self, metrics: Mapping[str, float]) -> dict[str, float] | None:
        """An evaluation has ended: the metrics of all sets once the last one has, if the policy asks for them."""
        if not self.decision_points.evaluations:
            return None
        self._metrics |= metrics
        self._evaluated += 1
        if self._evaluated < self._sets:
            return None
        found, self._metrics, self._evaluated = self._metrics, {}, 0
        return found

    def decide(
        self,
        step: int,
        mask: FreezeMask,
        *,
        learning_rate: float,
        cached: bool,
        metrics: Mapping[str, float] | None = None,
        ahead: float = 0.0,
    ) -> Decision | None:
        """What the policy says after `step` steps, with `mask` in force; `metrics` after an evaluation alone.

        `ahead`: how far the learning-rate schedule is ahead of `step`.
        """
        signals = Signals(
            step=step,
            total_steps=self._total_steps,
            steps_per_epoch=self._epoch_steps,
            epoch=step / self._epoch_steps,
            mask=mask,
            learning_rate=learning_rate,
            metrics=metrics,
            ahead=ahead,
            stack=self._stack,
            **self.watch.read(cached=cached, examples_pass=self._epoch_steps),
        )
        decision = self.policy.update(signals)
        if metrics is None:
            self.watch.reset()
        return decision

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has been measured so far, for a checkpoint."""
        return self.watch.tensors()

    def close(self) -> None:
        """Measure no more."""
        self.watch.close()

    def _due(self, step: int) -> int | None:
        """1 when the step after `step` is the last before a moment, 2 for the one before that."""
        return next((due for due in (1, 2) if step + due in self.decision_points.steps), None)
