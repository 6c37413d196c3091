"""PolicyRunner: measures what an adaptive policy needs, and calls it at its decision points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.mask import FreezeMask
from ..policies import AdaptivePolicy, Decision, Signals
from ..signals import SignalCollector


@dataclass(frozen=True)
class TrainingPlan:
    """What is known about a training run before its first step.

    Attributes:
        total_steps: Optimizer steps.
        steps_per_epoch: Optimizer steps in one pass over the training data. The whole run if its length is unknown.
        epochs: Passes over the training data. None if unknown.
        examples: Training examples of this process. None if unknown.
        accumulation: Micro-batches per optimizer step.
        evaluation_sets: Validation sets, each of which is reported separately.
        loss_scaled: Whether AMP scales the loss, and therefore skips a step now and then.
        seed: Seed of the run.
    """

    total_steps: int
    steps_per_epoch: float
    epochs: float | None = None
    examples: int | None = None
    accumulation: int = 1
    evaluation_sets: int = 1
    loss_scaled: bool = False
    seed: int = 0


class PolicyRunner:
    """Runs an adaptive policy during one training run.

    The training loop reports its events, with `step` the number of optimizer steps taken so far, and calls `decide` at
    the decision points.

    Args:
        policy: The policy, reset or restored from a checkpoint.
        model: The model that is trained.
        stack: Its units.
        plan: The training run.

    Attributes:
        signals: What the policy received at the last decision point; None before the first.
    """

    def __init__(self, policy: AdaptivePolicy, model: nn.Module, stack: BlockStack, plan: TrainingPlan) -> None:
        self.policy = policy
        self.decision_points = policy.decision_points(plan.total_steps, plan.steps_per_epoch)
        self.collector = SignalCollector(policy.needs, model, stack, accumulation=plan.accumulation)
        self.signals: Signals | None = None
        self._stack = stack
        self._plan = plan
        self._gradients_seen_at: int | None = None
        self._metrics: dict[str, float] = {}
        self._evaluations = 0
        self._evaluated_at: int | None = None

    def begin_step(self, step: int) -> None:
        """Call before the next step."""
        self.collector.begin_step(self._due(step))

    def gradients_ready(self, step: int) -> None:
        """Call when the gradients of the next step are complete, before clipping. Repeated calls are ignored."""
        if self._gradients_seen_at != step:
            self._gradients_seen_at = step
            self.collector.gradients_ready(self._due(step))

    def missed_gradients(self, step: int) -> bool:
        """Whether the policy needs the gradients of the next step and `gradients_ready` was not called for it."""
        return self.collector.needs_gradients and not self._plan.loss_scaled and self._gradients_seen_at != step

    def optimizer_stepped(self, step: int) -> None:
        """Call after the optimizer has taken the next step, while `step` does not include it yet."""
        if not (self.collector.needs_gradients and self._gradients_seen_at != step):
            self.collector.optimizer_stepped(self._due(step))

    def end_step(self) -> None:
        """Call at the end of a step, before `decide`."""
        self.collector.end_step()

    def add_metrics(self, metrics: Mapping[str, float], step: int) -> dict[str, float] | None:
        """Collect the metrics of one evaluation. Those of an earlier step are discarded.

        Args:
            metrics: The metrics.
            step: Number of optimizer steps taken.

        Returns:
            The metrics of all evaluation sets if this was the last one and the policy decides after evaluations.
            Otherwise None.
        """
        if not self.decision_points.evaluations:
            return None
        if step != self._evaluated_at:
            self._metrics, self._evaluations, self._evaluated_at = {}, 0, step
        self._metrics |= metrics
        self._evaluations += 1
        if self._evaluations < self._plan.evaluation_sets:
            return None
        collected, self._metrics, self._evaluations = self._metrics, {}, 0
        return collected

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
        """Measure the signals and call the policy.

        Args:
            step: Number of optimizer steps taken.
            mask: The mask in force.
            learning_rate: The learning rate of the first parameter group.
            cached: Whether the prefix cache is active.
            metrics: The metrics of an evaluation, if the decision follows one.
            ahead: How many steps the learning-rate schedule is ahead of `step`.
        """
        plan = self._plan
        self.signals = Signals(
            step=step,
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
            epoch=step / plan.steps_per_epoch,
            mask=mask,
            learning_rate=learning_rate,
            metrics=metrics,
            ahead=ahead,
            stack=self._stack,
            **self.collector.read(cached=cached, examples_pass=plan.steps_per_epoch),
        )
        decision = self.policy.update(self.signals)
        if metrics is None:
            self.collector.reset()
        return decision

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state of the measurements for a checkpoint."""
        return self.collector.tensors()

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned. Other names are ignored."""
        self.collector.load(tensors)

    def close(self) -> None:
        """Stop measuring."""
        self.collector.close()

    def _due(self, step: int) -> int | None:
        """1 if the policy decides after the next step, 2 if after the one that follows, else None."""
        return next((due for due in (1, 2) if step + due in self.decision_points.steps), None)
