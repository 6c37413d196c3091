"""FreezingRun: everything that exists from the first step of a training run to its last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..cache import CacheSession, PrefixCache
from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.freezer import Freezer
from ..model.mask import FreezeMask
from ..model.timeline import Timeline
from ..policies import AdaptivePolicy, Decision, Policy
from ..side.attach import check_side_network, tap_boundaries
from .checkpoint import SavedRun, class_name, describe_settings
from .data_sieve import DataSieve
from .policy_runner import PolicyRunner, TrainingPlan
from .schedule_pace import SchedulePace

logger = logging.getLogger(__name__)


class FreezingRun:
    """One training run under a policy.

    It applies the mask of the policy to the model, its optimizer and the cache, carries out the decisions of an
    adaptive policy, and records every change in a timeline.

    Args:
        policy: The policy. It is reset, or restored from `saved`.
        model: The model that is trained.
        stack: Its units.
        plan: The training run.
        optimizer: The optimizer of the training loop.
        cache: The cache for the outputs of the frozen prefix, if any.
        eval_frozen: Whether frozen units run in evaluation mode.
        step: Number of optimizer steps taken.
        saved: The state to resume from.
        tokens: Returns the tokens that occur in the training data. Called only for a mask that depends on them.

    Raises:
        RequestError: If the policy does not fit the model or the data, or its mask leaves nothing to train. The model
            is left as it was.

    Attributes:
        sieve: Leaves out training examples, if the policy has a sieve.
        sieved_batches: Number of batches of the epoch in progress, if the policy has a sieve.
    """

    def __init__(
        self,
        policy: Policy,
        model: nn.Module,
        stack: BlockStack,
        plan: TrainingPlan,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        cache: PrefixCache | None = None,
        eval_frozen: bool = False,
        step: int = 0,
        saved: SavedRun | None = None,
        tokens: Callable[[], Iterable[int]] | None = None,
    ) -> None:
        self._tokens = tokens
        self._seen: frozenset[int] | None = None
        self.policy = policy
        self.stack = stack
        self.plan = plan
        self.runner: PolicyRunner | None = None
        self.model = model
        self._cache = cache
        self._eval_frozen = eval_frozen
        self._session: CacheSession | None = None
        self._optimizer = optimizer
        self.sieve = None if policy.sieve is None else _sieve(policy, plan)
        self.sieved_batches = 0
        policy.reset()
        if policy.side is not None:
            check_side_network(model, optimizer)
        if saved is None:
            mask = self._with_seen_tokens(policy.initial_mask(stack))
            self.timeline = Timeline()
            self.timeline.record(step, mask, policy.reason)
            self.learning_rates: dict[str, float] = dict(policy.initial_learning_rates(stack))
            self.pace = SchedulePace()
            self.ended = False
        else:
            policy.load_state_dict(saved.policy_state)
            self.timeline = Timeline.from_json(saved.timeline)
            mask = self.timeline[-1].mask
            self.learning_rates = saved.learning_rates
            self.pace = SchedulePace(**saved.pace)
            self.ended = saved.ended
            if self.sieve is not None:
                self.sieve.load(saved.sieve, saved.tensors)
        self.freezer = Freezer(
            model,
            stack,
            optimizer=optimizer,
            eval_frozen=eval_frozen,
            keep_optimizer_state=policy.keep_optimizer_state,
        )
        try:
            self._start(mask, step, saved)
        except BaseException:
            self.close(restore=True)
            raise

    @property
    def mask(self) -> FreezeMask:
        """The mask in force."""
        return self.freezer.mask

    @property
    def cached(self) -> bool:
        """Whether the prefix cache is active."""
        return self._session is not None and self._session.stats.disabled_reason is None

    @property
    def row_bytes(self) -> int:
        """Size of the hidden states in the cache, in bytes."""
        return 0 if self._session is None else self._session.row_bytes

    @contextmanager
    def without_freezing(self) -> Iterator[None]:
        """Run forward and backward passes without the cache, and with the flags of the user."""
        if self._session is not None:
            self._session.paused = True
        try:
            with self.freezer.user_flags():
                yield
        finally:
            if self._session is not None:
                self._session.paused = False

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Run forward and backward passes that are no part of the training, and are not measured."""
        if self.runner is None:
            yield
            return
        self.runner.collector.paused = True
        try:
            yield
        finally:
            self.runner.collector.paused = False

    def move(self, mask: FreezeMask, reason: str, step: int) -> None:
        """Make `mask` hold from now on, and record it.

        Raises:
            RequestError: If no parameter would be left to train.
        """
        mask = self._with_seen_tokens(mask)
        self.freezer.apply(mask)
        self.timeline.record(step, mask, reason)
        self._move_cache(step)

    def decide(self, step: int, metrics: Mapping[str, float] | None = None) -> bool:
        """Call the policy, and carry out its decision.

        Args:
            step: Number of optimizer steps taken.
            metrics: The metrics of an evaluation, if the decision follows one.

        Returns:
            Whether the policy ends the training.
        """
        if self.runner is None:
            return False
        decision = self.runner.decide(
            step,
            self.mask,
            learning_rate=self._learning_rate(),
            cached=self.cached,
            metrics=metrics,
            ahead=self.pace.ahead,
        )
        if decision is None:
            return False
        self._carry_out(decision, step)
        self.ended |= decision.stop
        return decision.stop

    def begin_epoch(self) -> None:
        """Start a new pass over the training data."""
        if self._session is not None:
            self._session.next_epoch()

    def begin_sieved_epoch(self, epoch: int, step: int, *, fewest: int) -> None:
        """Choose the training examples of an epoch, and record how many are left out.

        Args:
            epoch: Number of the epoch, counted from 0.
            step: Number of optimizer steps taken.
            fewest: Number of examples below which all are used.
        """
        assert self.sieve is not None
        before, total = self.sieve.kept, self.sieve.examples
        self.sieve.begin_epoch(epoch, fewest=fewest)
        left_out = total - self.sieve.kept
        if left_out:
            reason = f"epoch {epoch + 1} leaves out {left_out:,} of {total:,} examples"
        elif before < total:
            reason = f"epoch {epoch + 1} uses all {total:,} examples"
        else:
            return
        last = self.timeline[-1]
        self.timeline.record(step, self.mask, f"{last.reason}; {reason}" if last.step == step else reason)

    def end_step(self, step: int, scheduler: Any = None) -> bool:
        """Finish a step: advance the schedule, and decide if the step is a decision point.

        Args:
            step: Number of optimizer steps taken, the current one included.
            scheduler: The learning-rate scheduler, which has taken its own step already.

        Returns:
            Whether the training ends here, by decision of the policy or with its schedule.
        """
        if self.runner is None and self.sieve is None:
            return False
        if self.runner is not None:
            self.runner.end_step()
        ended = self.pace.advance(scheduler, step, self.plan.total_steps)
        if self.runner is not None and step in self.runner.decision_points.steps:
            ended |= self.decide(step)
        self.ended |= ended
        return ended

    def save(self) -> SavedRun:
        """Return the state for a checkpoint."""
        measured = {} if self.runner is None else self.runner.tensors()
        sieved = {} if self.sieve is None else self.sieve.tensors()
        return SavedRun(
            policy=str(self.policy),
            policy_class=class_name(self.policy),
            policy_state=self.policy.state_dict(),
            timeline=self.timeline.to_json(),
            learning_rates=self.learning_rates,
            pace=self.pace.state_dict(),
            ended=self.ended,
            settings=self.settings(),
            cache={} if self._session is None else self._session.state_dict(),
            without_state=self.freezer.without_optimizer_state(),
            sieve={} if self.sieve is None else self.sieve.state_dict(self.sieved_batches),
            tensors={
                **measured,
                **sieved,
                **self.freezer.optimizer_state(),
                **self.freezer.smallest_elements(),
            },
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect the weights, as plain JSON."""
        return {"eval_frozen": self._eval_frozen, "cache": None if self._cache is None else self._cache.to_json()}

    def close(self, *, restore: bool) -> None:
        """End the run: detach from the model.

        Args:
            restore: Whether the user's flags and modes are restored. Otherwise the mask stays in force.
        """
        if self.runner is not None:
            self.runner.close()
        if self._session is not None:
            self._session.detach()
            self._session = None
        if restore:
            self.freezer.restore()
        else:
            self.freezer.release()

    def _start(self, mask: FreezeMask, step: int, saved: SavedRun | None) -> None:
        tensors = {} if saved is None else saved.tensors
        self.freezer.load_smallest_elements(tensors)
        self.freezer.apply(mask)
        self.freezer.load_optimizer_state(tensors)
        if self.learning_rates:
            self.freezer.scale_learning_rates(self.learning_rates)
        if isinstance(self.policy, AdaptivePolicy):
            self.runner = PolicyRunner(self.policy, self.model, self.stack, self.plan)
            self.runner.load(tensors)
        if saved is not None and saved.settings != self.settings():
            logger.warning(
                "The checkpoint was written with %s; this run continues with %s.",
                describe_settings(saved.settings),
                describe_settings(self.settings()),
            )
        if self._cache is not None:
            self._start_cache(self._cache, mask, step, saved)

    def _start_cache(self, cache: PrefixCache, mask: FreezeMask, step: int, saved: SavedRun | None) -> None:
        epoch, steps = divmod(step, self.plan.steps_per_epoch) if self.plan.steps_per_epoch else (0, 0)
        if self.sieve is not None and saved is not None:
            epoch, steps = self.sieve.epoch, self.sieve.batches
        self._session = CacheSession(
            cache,
            self.model,
            self.stack,
            taps=tap_boundaries(self.model),
            seed=self.plan.seed,
            epoch=int(epoch),
            partial=steps > 0,
        )
        if saved is not None and saved.settings["cache"] == cache.to_json():
            self._session.resume(mask, saved.cache, examples=self.plan.examples)
            return
        if saved is not None and saved.cache.get("served"):
            self._session.continue_serving()
        self._move_cache(step)

    def _carry_out(self, decision: Decision, step: int) -> None:
        if decision.learning_rates is not None:
            self.learning_rates = dict(decision.learning_rates)
            self.freezer.scale_learning_rates(self.learning_rates)
        if decision.pace is not None:
            self.pace.set_rate(decision.pace)
        if decision.mask != self.mask:
            self.move(decision.mask, decision.reason, step)
        elif decision.reason and decision.reason != self.timeline[-1].reason:
            self.timeline.record(step, decision.mask, decision.reason)

    def _with_seen_tokens(self, mask: FreezeMask) -> FreezeMask:
        """The mask with a list of rows in place of "the rows of tokens that do not occur"."""
        if self._tokens is None or not any(part.choice == "unseen" for part in mask.slices):
            return mask
        if self._seen is None:
            self._seen = frozenset(self._tokens())
        return self.stack.with_seen_tokens(mask, self._seen)

    def _move_cache(self, step: int) -> None:
        if self._session is not None:
            self._session.move(self.mask, passes=self._remaining_passes(step), examples=self.plan.examples)

    def _remaining_passes(self, step: int) -> float | None:
        """Passes over the training data that are left, or None if unknown."""
        if not self.plan.epochs or not self.plan.total_steps:
            return None
        return self.pace.remaining_steps(step, self.plan.total_steps) * self.plan.epochs / self.plan.total_steps

    def _learning_rate(self) -> float:
        if self._optimizer is None:
            return 0.0
        return float(self._optimizer.param_groups[0]["lr"] or 0.0)


def _sieve(policy: Policy, plan: TrainingPlan) -> DataSieve:
    if plan.examples is None or not plan.steps_per_epoch:
        raise RequestError(f"{policy} leaves out training examples, which needs training data with a length.")
    return DataSieve(policy, examples=plan.examples, epochs=plan.total_steps / plan.steps_per_epoch, seed=plan.seed)
