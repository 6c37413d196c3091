"""freeze: freezing in a plain PyTorch training loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.freezer import Freezer
from ..model.mask import FreezeMask
from ..model.timeline import Timeline
from ..policies import AdaptivePolicy, Policy, parse_policy
from .hooks import all_finite
from .policy_runner import TrainingPlan
from .run import FreezingRun
from .towers import blocks_for

logger = logging.getLogger(__name__)


def freeze(
    model: nn.Module,
    policy: Policy | str,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
    total_steps: int | None = None,
    steps_per_epoch: float | None = None,
    accumulation: int = 1,
    tower: str | None = None,
    eval_frozen: bool = False,
) -> LoopRun:
    """Freeze a model by a policy in a plain PyTorch training loop.

    Example:
        A static policy needs nothing but the loop:

        ```python
        with freeze(model, BottomUp(6), optimizer=optimizer):
            train(model, optimizer)
        ```

        An adaptive policy decides in `run.step()`, after each step of the optimizer:

        ```python
        with freeze(model, AutoFreeze(), optimizer=optimizer, total_steps=steps, steps_per_epoch=len(loader)) as run:
            for batch in batches:
                model(**batch).loss.backward()
                run.gradients_ready()  # before gradients are clipped; needed by policies that use gradients
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if run.step():
                    break
        ```

    Args:
        model: The model to freeze.
        policy: A policy, or its spec such as `"bottom-up:6"`.
        optimizer: The optimizer of the loop. An adaptive policy needs it.
        scheduler: The learning-rate scheduler, for policies that end the run early together with its schedule.
        total_steps: Optimizer steps planned. An adaptive policy needs it.
        steps_per_epoch: Optimizer steps in one pass over the training data. An adaptive policy needs it.
        accumulation: Micro-batches per optimizer step.
        tower: The tower to freeze in a model with several, as in `FreezeCallback`.
        eval_frozen: Whether frozen units run in evaluation mode, that is, without dropout.

    Returns:
        The run. The user's flags are restored at the end of the `with` block, or by `restore()`.

    Raises:
        RequestError: If the policy does not fit the model, leaves nothing to train, misses one of the arguments that
            it needs, leaves out training examples, or needs a signal that cannot be measured here.
    """
    policy = parse_policy(policy)
    if policy.sieve is not None:
        raise RequestError(
            f"{policy} leaves out training examples, which works in a Trainer only: choose a policy without a sieve."
        )
    if isinstance(policy, AdaptivePolicy):
        needed = {"optimizer": optimizer, "total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise RequestError(f"{policy} decides during training: pass {' and '.join(missing)} to freeze().")
        if "timed costs" in policy.needs:
            raise RequestError(
                f"{policy} needs the measured time of each part of a step, which is available in a Trainer only: "
                "choose a policy that does not need 'timed costs'."
            )
    plan = TrainingPlan(total_steps=total_steps or 0, steps_per_epoch=steps_per_epoch or 0, accumulation=accumulation)
    stack = blocks_for(model, tower, policy)
    run = FreezingRun(policy, model, stack, plan, optimizer=optimizer, eval_frozen=eval_frozen)
    return LoopRun(run, model, scheduler)


class LoopRun:
    """One run of a plain training loop. `freeze` returns it.

    Args:
        run: The run.
        model: The model that is trained.
        scheduler: The learning-rate scheduler, if any.

    Attributes:
        freezer: Applies masks and learning rates, and takes an optimizer that is created after `freeze`.
        stack: The units of the model.
        timeline: All changes of the mask with their reasons.
    """

    def __init__(self, run: FreezingRun, model: nn.Module, scheduler: Any = None) -> None:
        self.freezer: Freezer = run.freezer
        self.stack: BlockStack = run.stack
        self.timeline: Timeline = run.timeline
        self._run = run
        self._model = model
        self._scheduler = scheduler
        self._step = 0
        self._stepped_at: int | None = None  # the value of _step when the optimizer stepped last
        self._gradients_at: int | None = None  # the same for gradients_ready
        self._evaluated = False
        self._handles: list[Any] = []
        if run.runner is not None:
            optimizer = self.freezer.optimizer
            assert optimizer is not None  # freeze() has checked it
            self._handles = [
                optimizer.register_step_pre_hook(self._before_optimizer_step),
                optimizer.register_step_post_hook(self._after_optimizer_step),
            ]
            run.runner.begin_step(0)

    @property
    def mask(self) -> FreezeMask:
        """The mask in force."""
        return self._run.mask

    def apply(self, mask: FreezeMask, reason: str = "applied by hand") -> None:
        """Make `mask` hold from now on, and record it in the timeline.

        Raises:
            RequestError: If no parameter would be left to train.
        """
        self._run.move(mask, reason, self._step)

    def gradients_ready(self) -> None:
        """Measure the gradients of a step. Call after `backward()`, before gradients are clipped.

        Only policies that use gradients need it. With a `GradScaler`, call it after `scaler.unscale_(optimizer)`.
        Gradients that are not finite are ignored, because the scaler skips their step.
        """
        self._gradients_at = self._step
        runner = self._run.runner
        if runner is not None and runner.collector.needs_gradients and all_finite(self._model):
            runner.gradients_ready(self._step)

    def step(self, metrics: Mapping[str, float] | None = None) -> bool:
        """Finish one step. Call after `optimizer.step()` and after the step of the scheduler.

        Args:
            metrics: The metrics of an evaluation of the present weights, for policies that decide after evaluations.
                Names are as in a Trainer: `{"eval_loss": 0.31, "eval_f1": 0.9}`.

        Returns:
            Whether the training ends here, by decision of the policy or because its schedule has ended early.
        """
        self._step += 1
        ended = self._run.end_step(self._step, self._scheduler)
        runner = self._run.runner
        if runner is not None:
            collected = runner.add_metrics(metrics, self._step) if metrics is not None else None
            if collected is not None:
                self._evaluated = True
                ended |= self._run.decide(self._step, collected)
            runner.begin_step(self._step)
        return ended

    def restore(self) -> None:
        """End the run, and restore the flags and modes that the user had set."""
        self._close(restore=True)

    def release(self) -> None:
        """End the run, and leave the mask in force."""
        self._close(restore=False)

    def __enter__(self) -> LoopRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def _close(self, *, restore: bool) -> None:
        runner = self._run.runner
        if self._handles and runner is not None and runner.decision_points.evaluations and not self._evaluated:
            logger.warning("%s decides after evaluations, but step() received no metrics.", self._run.policy)
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._run.close(restore=restore)

    def _before_optimizer_step(self, *_: Any) -> None:
        runner = self._run.runner
        if self._stepped_at == self._step:
            raise RequestError(f"{self._run.policy} decides during training: call step() after each optimizer.step().")
        if runner is not None and runner.collector.needs_gradients and self._gradients_at != self._step:
            raise RequestError(
                f"{self._run.policy} needs gradients before they are clipped: call gradients_ready() after backward()."
            )

    def _after_optimizer_step(self, *_: Any) -> None:
        self._stepped_at = self._step
        if self._run.runner is not None:
            self._run.runner.optimizer_stepped(self._step)
