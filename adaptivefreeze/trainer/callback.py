"""FreezeCallback: freezing for the Hugging Face Trainer. The only room that knows Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..cache import PrefixCache
from ..errors import RequestError
from ..model.blocks import BlockStack, find_blocks
from ..model.freezer import Freezer
from ..model.mask import FreezeMask
from ..model.timeline import Timeline
from ..policies import AdaptivePolicy, Decision, Policy, parse_policy
from .hooks import (
    Patches,
    count_examples,
    load_tensors,
    passes_to_go,
    refuse_second,
    resumed_checkpoint,
    resumed_state,
    running_trainer,
    save_tensors,
    steps_per_epoch,
    watch_failure,
    watch_raw_gradients,
)
from .policy_runner import Deciding
from .schedule_pace import Pace


class FreezeCallback(TrainerCallback, ExportableState):
    """Freezes what `policy` says, from the first step of `Trainer.train()` to its end.

    >>> trainer = Trainer(model=model, args=args, train_dataset=train,  # doctest: +SKIP
    ...                   callbacks=[FreezeCallback(BottomUp(6))])

    `policy`: a Policy or its spec (`"bottom-up:6"`). `cache`: True, or a `PrefixCache(memory="4GiB", disk=None)`: skip
    the frozen prefix for examples seen before; it then runs in eval mode. `restore`: give the user's `requires_grad`
    flags and modes back when training ends, by an exception too; else the mask stays. `eval_frozen`: frozen units run
    in eval mode (no dropout). `tower`: which tower of a model with several.

    After and during training `mask`, `timeline` and `stack` tell what is frozen, when it was, and of what.
    Raises `RequestError` for a policy that does not fit the model, for a mask that leaves nothing to train, and for
    a second FreezeCallback in one Trainer, before the first step.
    """

    def __init__(
        self,
        policy: Policy | str,
        *,
        cache: PrefixCache | dict[str, Any] | bool = False,
        restore: bool = True,
        eval_frozen: bool = False,
        tower: str | None = None,
    ) -> None:
        self.policy = parse_policy(policy)
        self.stack: BlockStack | None = None
        self.mask: FreezeMask | None = None
        self.timeline = Timeline()
        self.saved: dict[str, Any] | None = None  # set by Trainer when it restores callbacks from a checkpoint
        self._options: dict[str, Any] = {"restore": restore, "eval_frozen": eval_frozen, "tower": tower}
        self.cache = PrefixCache.of(cache)
        self._freezer: Freezer | None = None
        self._patches = Patches()
        self._guarded = False
        self._examples: int | None = None
        self._deciding: Deciding | None = None
        self._learning_rates: dict[str, float] = {}
        self._pace = Pace()

    # What Trainer calls

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = running_trainer()
        if trainer is not None:
            self._guarded = True
            watch_failure(self._patches, trainer, "train", self._failed, for_good=True)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end(restore=True)  # what an earlier train() left behind
        trainer = running_trainer()
        if trainer is not None:
            refuse_second(trainer, type(self))
            if not self._guarded:
                # Added after the Trainer was made: this train() is already running.
                self._guarded = True
                watch_failure(self._patches, trainer, "train", self._failed, for_good=True)
                watch_failure(self._patches, trainer, "training_step", self._failed)
            self._patches.put(trainer, "log", self._log_with_freezing)
        model: nn.Module = kwargs["model"]
        try:
            tensors = self._begin(model, kwargs.get("optimizer"), state)
            self._follow(trainer, model, args, state, kwargs.get("train_dataloader"), tensors)
            if self.cache is not None and self.stack is not None and self.mask is not None:
                self.cache.attach(model, self.stack)
                self._examples = count_examples(kwargs.get("train_dataloader"))
                self.cache.move(self.mask, passes=passes_to_go(state, self._pace), examples=self._examples)
        except BaseException:
            self._end(restore=True)
            raise

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.cache is not None:
            self.cache.next_epoch()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._deciding is not None:
            self._deciding.begins(state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._deciding is not None and self._deciding.gradients_missed(state.global_step):
            raise RequestError(
                f"{self.policy} reads gradients, which cannot be seen here before they are clipped (DeepSpeed?): "
                "take a policy that needs none."
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._deciding is not None:
            self._deciding.stepped(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._deciding is None:
            return
        self._deciding.ended()
        control.should_training_stop |= self._pace.stepped(
            kwargs.get("lr_scheduler"), state.global_step, state.max_steps
        )
        if state.global_step in self._deciding.decision_points.steps:
            self._ask(self._deciding, state, control, kwargs.get("optimizer"))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = None if self._deciding is None else self._deciding.evaluated(kwargs.get("metrics") or {})
        if self._deciding is not None and metrics is not None:
            self._ask(self._deciding, state, control, kwargs.get("optimizer"), metrics)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._deciding is not None and self._freezer is not None and args.should_save:
            save_tensors({**self._deciding.tensors(), **self._freezer.kept_moments()}, args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end(restore=self._options["restore"])

    def state(self) -> dict[str, Any]:
        """For the checkpoint: the arguments that make this callback anew, and what it has decided so far."""
        return {
            "args": {"policy": str(self.policy), "cache": self.cache and self.cache.arguments(), **self._options},
            "attributes": {
                "saved": {
                    "policy": str(self.policy),
                    "policy_state": self.policy.state_dict(),
                    "mask": None if self.mask is None else self.mask.to_json(),
                    "timeline": self.timeline.to_json(),
                    "learning_rates": self._learning_rates,
                    "pace": self._pace.state_dict(),
                }
            },
        }

    # For people

    def move(self, mask: FreezeMask, reason: str, state: TrainerState) -> None:
        """Make `mask` hold from now on, and note why. For policies, and for people who decide by themselves.

        Raises `RequestError` when it leaves nothing to train, and `RuntimeError` outside of training.
        """
        if self._freezer is None:
            raise RuntimeError("nothing is being trained: a mask can be moved between on_train_begin and on_train_end")
        self._freezer.apply(mask)
        self.mask = mask
        self.timeline.record(state.global_step, mask, reason)
        if self.cache is not None:
            self.cache.move(mask, passes=passes_to_go(state, self._pace), examples=self._examples)

    def restore(self) -> None:
        """End freezing now and give the user's flags back. Harmless when nothing is frozen."""
        self._end(restore=True)

    def measures(self) -> dict[str, float]:
        """What every log line gains: how many units the frozen prefix has, and how much is frozen and trains."""
        if self.stack is None or self.mask is None:
            return {}
        measures: dict[str, float] = {
            "freeze/prefix": self.mask.prefix,
            "freeze/frozen_fraction": self.stack.frozen_fraction(self.mask),
            "freeze/trainable_parameters": self.stack.trainable_parameters(self.mask),
        }
        if self.cache is not None:
            stats = self.cache.stats
            measures |= {
                "freeze/cache_hit_rate": stats.hit_rate,
                "freeze/cache_bytes": stats.memory_bytes + stats.disk_bytes,
                "freeze/cache_seconds_saved": stats.seconds_saved,
                "freeze/cache_seconds_spent": stats.seconds_spent,
            }
        return measures

    # One run

    def _begin(self, model: nn.Module, optimizer: Any, state: TrainerState) -> dict[str, torch.Tensor]:
        """Freeze what the policy starts with, or what the checkpoint says; its tensors are given back."""
        self._learning_rates, self._pace = {}, Pace()
        tensors: dict[str, torch.Tensor] = {}
        self.stack = find_blocks(model, self._options["tower"])
        saved = resumed_state(self, self.policy, self.saved, state)
        self.saved = None
        if saved is None:
            self.timeline = Timeline()
            self.policy.reset()
            mask = self.policy.initial_mask(self.stack)
            if isinstance(self.policy, AdaptivePolicy):
                self._learning_rates = dict(self.policy.initial_learning_rates(self.stack))
        else:
            self.policy.reset()
            self.policy.load_state_dict(saved["policy_state"])
            self.timeline = Timeline.from_json(saved["timeline"])
            mask = FreezeMask.from_json(saved["mask"])
            self._learning_rates = saved.get("learning_rates") or {}
            self._pace = Pace(**saved.get("pace", {}))
            tensors = load_tensors(resumed_checkpoint())
        self._freezer = Freezer(
            model,
            self.stack,
            optimizer=optimizer,
            eval_frozen=self._options["eval_frozen"],
            keep_optimizer_state=self.policy.keep_optimizer_state,
        )
        self._freezer.apply(mask)
        self._freezer.load_kept_moments(tensors)
        if self._learning_rates:
            self._freezer.scale(self._learning_rates)
        self.mask = mask
        if saved is None:
            self.timeline.record(state.global_step, mask, self.policy.reason)
        # Trainer fails at its first save without this entry, when the checkpoint it resumed from had none.
        callbacks: Any = state.stateful_callbacks
        callbacks.setdefault(type(self).__name__, self.state())
        return tensors

    def _follow(
        self,
        trainer: Trainer | None,
        model: nn.Module,
        args: TrainingArguments,
        state: TrainerState,
        loader: Any,
        tensors: dict[str, torch.Tensor],
    ) -> None:
        """Stand ready to ask an adaptive policy at its moments, and to measure what it needs."""
        if not isinstance(self.policy, AdaptivePolicy) or self.stack is None:
            return
        sets = getattr(trainer, "eval_dataset", None)
        self._deciding = Deciding(
            self.policy,
            model,
            self.stack,
            total_steps=state.max_steps,
            epoch_steps=steps_per_epoch(args, state, loader),
            accumulation=args.gradient_accumulation_steps,
            evaluation_sets=len(sets) if isinstance(sets, dict) else 1,
            scaled=trainer is not None and getattr(trainer.accelerator, "scaler", None) is not None,
        )
        if self._deciding.decision_points.evaluations and args.eval_strategy == "no":
            raise RequestError(
                f"{self.policy} decides after evaluations, and there are none: set eval_strategy to 'epoch' or 'steps'."
            )
        self._deciding.watch.load(tensors)
        if trainer is not None and self._deciding.watch.needs_gradients:
            ready = self._deciding.gradients_ready
            watch_raw_gradients(self._patches, trainer, model, lambda: ready(trainer.state.global_step))

    def _ask(
        self,
        deciding: Deciding,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any,
        metrics: dict[str, float] | None = None,
    ) -> None:
        if self.mask is None:
            return
        decision = deciding.decide(
            state.global_step,
            self.mask,
            learning_rate=float(optimizer.param_groups[0]["lr"] or 0.0) if optimizer is not None else 0.0,
            cached=self.cache is not None and self.cache.stats.declined is None,
            metrics=metrics,
            ahead=self._pace.ahead,
        )
        if decision is not None:
            self._obey(decision, state, control)

    def _obey(self, decision: Decision, state: TrainerState, control: TrainerControl) -> None:
        if self._freezer is not None and decision.learning_rates is not None:
            self._learning_rates = dict(decision.learning_rates)
            self._freezer.scale(self._learning_rates)
        if decision.pace is not None:
            self._pace.set(decision.pace)
        if decision.mask != self.mask:
            self.move(decision.mask, decision.reason, state)
        elif decision.reason:
            self.timeline.record(state.global_step, decision.mask, decision.reason)
        control.should_training_stop |= decision.stop

    def _end(self, *, restore: bool) -> None:
        self._patches.remove()
        if self._deciding is not None:
            self._deciding.close()
            self._deciding = None
        if self.cache is not None:
            self.cache.detach()
        if self._freezer is not None:
            freezer, self._freezer = self._freezer, None
            if restore:
                freezer.restore()
            else:
                freezer.release()

    # What Trainer offers no event for: the end by an exception, and a log line before it is shown

    def _failed(self) -> None:
        self._end(restore=True)

    def _log_with_freezing(
        self, original: Callable[..., Any], logs: dict[str, float], *args: Any, **kwargs: Any
    ) -> Any:
        return original({**logs, **self.measures()}, *args, **kwargs)
