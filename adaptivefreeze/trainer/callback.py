"""FreezeCallback: freezing in the Hugging Face Trainer."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..cache import PrefixCache
from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.mask import FreezeMask
from ..model.timeline import Timeline
from ..policies import Policy, Signals, parse_policy
from ..side import add_side_network
from .announcer import Announcer, add_to_model_card
from .checkpoint import SavedRun, load_run, refuse_incomplete, refuse_other_depth
from .data_sieve import DataSieve
from .delta_checkpoints import save_deltas
from .distributed import Wrapping, refuse_sharding
from .gradient_guard import GradientGuard
from .hooks import (
    Patches,
    check_evaluations,
    checkpoint_folder,
    keep_host_copies,
    on_failure,
    on_raw_gradients,
    refuse_second,
    resumed_checkpoint,
    running_trainer,
    seen_tokens,
    skip_training,
    training_plan,
)
from .precision import warn_slow_precision
from .run import FreezingRun
from .sieving import SievedTraining, resume_in_sieved_epoch
from .summary import RunMeter, RunSummary
from .towers import blocks_for

logger = logging.getLogger(__name__)


class FreezeCallback(TrainerCallback):
    """Freezes a model by a policy, from the first step of `Trainer.train()` to the last.

    One line at the start says what is frozen, and what that is predicted to save. A second one forecasts time and
    memory after 20 steps, in a run of at least 80. One line for each change gives its reason. A summary follows at the
    end. Every log line of the Trainer gains the values of `log_values()`. During and after training, `mask`,
    `timeline`, `stack` and `summary()` show what is frozen, and when it changed. Checkpoints hold the state of
    freezing, and a resumed run continues exactly.

    Example:
        ```python
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=train,
            callbacks=[FreezeCallback(BottomUp(6), cache=True)],
        )
        trainer.train()
        ```

    Args:
        policy: A policy, or its spec such as `"bottom-up:6"`.
        cache: Whether to skip the frozen prefix for examples seen before: True, or a `PrefixCache` with settings of
            your own. The prefix then runs in evaluation mode.
        restore: Whether the `requires_grad` flags and the modes that you had set are restored after training. They
            are restored after an exception in any case. If False, the last mask stays in force after training.
        eval_frozen: Whether frozen units run in evaluation mode, that is, without dropout.
        tower: The tower to freeze in a model with several, as in `find_blocks`. By default the encoder of a model with
            an encoder and a decoder, for a policy that freezes from the bottom.
        quiet: Whether nothing is written to the console. The messages have level INFO, on loggers below
            `adaptivefreeze`, and are shown unless that logger has a level of its own.
        model_card: Whether the model card that the Trainer writes gets a section about freezing.
        save: What checkpoints and `Trainer.save_model` hold: `"full"` for the whole model, or `"delta"` for the trained
            parameters alone, as `save_delta` writes them. `load_delta` loads them onto the same base model.

    Raises:
        RequestError: For wrong arguments. At the start of training, before the first step, also for a policy that
            does not fit the model, a mask that leaves nothing to train, a policy that decides after evaluations if
            there are none, and a second `FreezeCallback` in one Trainer.

    Attributes:
        policy: The policy. It may be replaced between two calls of `Trainer.train()`.
        cache: The prefix cache, with its statistics in `cache.stats`, or None.
        stack: The units of the model. None before the first training.
        timeline: All changes of the mask in the current or last training, with their reasons.
    """

    def __init__(
        self,
        policy: Policy | str,
        *,
        cache: PrefixCache | bool = False,
        restore: bool = True,
        eval_frozen: bool = False,
        tower: str | None = None,
        quiet: bool = False,
        model_card: bool = False,
        save: Literal["full", "delta"] = "full",
    ) -> None:
        flags = {"restore": restore, "eval_frozen": eval_frozen, "quiet": quiet, "model_card": model_card}
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise RequestError(f"{name} must be True or False, not {flag!r}.")
        if not isinstance(cache, (bool, PrefixCache)):
            raise RequestError(f"cache must be True, False or a PrefixCache, not {cache!r}.")
        if tower is not None and not isinstance(tower, str):
            raise RequestError(f"tower must be the path of a module, not {tower!r}.")
        if save not in ("full", "delta"):
            raise RequestError(f"save must be 'full' or 'delta', not {save!r}.")
        self.policy = parse_policy(policy)
        self.cache = PrefixCache() if cache is True else cache or None
        self.stack: BlockStack | None = None
        self.timeline = Timeline()
        self._restore = restore
        self._eval_frozen = eval_frozen
        self._tower = tower
        self._quiet = quiet
        self._model_card = model_card
        self._saved_weights = save
        self._run: FreezingRun | None = None
        self._sieve: DataSieve | None = None
        self._announcer: Announcer | None = None
        self._meter: RunMeter | None = None
        self._gradient_guard: GradientGuard | None = None
        self._state_written = False
        self._patches = Patches()
        self._guarded: WeakSet[Trainer] = WeakSet()
        self._wrapping = Wrapping(lambda: self.policy, tower)

    @property
    def mask(self) -> FreezeMask | None:
        """The mask in force, or the last one after training. None before the first training."""
        return self.timeline[-1].mask if len(self.timeline) else None

    @property
    def signals(self) -> Signals | None:
        """What an adaptive policy received at its last decision point. None before the first, and after training."""
        return self._run.runner.signals if self._run is not None and self._run.runner is not None else None

    def move(self, mask: FreezeMask, reason: str, state: TrainerState) -> None:
        """Make `mask` hold from now on, and record it in the timeline.

        Args:
            mask: The new mask.
            reason: The reason, for the timeline.
            state: The state of the Trainer.

        Raises:
            RequestError: If no parameter would be left to train. Under DDP also if parameters would train that a static
                policy has frozen since training began, because DDP does not exchange their gradients.
            RuntimeError: Outside of training.
        """
        if self._run is None:
            raise RuntimeError("nothing is being trained: move a mask between on_train_begin and on_train_end")
        self._wrapping.check(running_trainer(), self._run.model, self._run.stack.frozen(mask), moves=True)
        self._run.move(mask, reason, state.global_step)

    def restore(self) -> None:
        """Stop freezing and restore the user's flags. Does nothing when no training runs."""
        self._end(restore=True)

    def summary(self) -> RunSummary | None:
        """Return what was frozen when, and what that saved, in the current or last training. None before the first.

        Example:
            ```python
            print(callback.summary())
            ```
        """
        return None if self._meter is None else self._meter.summary()

    def log_values(self) -> dict[str, float]:
        """Return what is frozen, and what the cache has done, as in the log lines of the Trainer.

        Returns:
            `freeze/frozen_blocks`: number of blocks that are frozen whole, at any position. Embeddings and head do not
            count. `freeze/frozen_fraction`: share of all parameters that do not train, from 0 to 1.
            `freeze/trainable_parameters`: number of parameters that train. With a cache also `freeze/cache_hit_rate`,
            `freeze/cache_bytes`, `freeze/cache_seconds_saved` and `freeze/cache_seconds_spent`. With a sieve also
            `freeze/examples_skipped`: number of examples left out of the epochs so far. Empty before the first
            training.
        """
        mask = self.mask
        if self.stack is None or mask is None:
            return {}
        values: dict[str, float] = {
            "freeze/frozen_blocks": len(mask.blocks),
            "freeze/frozen_fraction": self.stack.frozen_fraction(mask),
            "freeze/trainable_parameters": self.stack.trainable_parameters(mask),
        }
        if self.cache is not None:
            stats = self.cache.stats
            values |= {
                "freeze/cache_hit_rate": stats.hit_rate,
                "freeze/cache_bytes": stats.memory_bytes + stats.disk_bytes,
                "freeze/cache_seconds_saved": stats.seconds_saved,
                "freeze/cache_seconds_spent": stats.seconds_spent,
            }
        if self._sieve is not None:
            values["freeze/examples_skipped"] = self._sieve.skipped
        return values

    def __repr__(self) -> str:
        return f"FreezeCallback({str(self.policy)!r}, cache={self.cache is not None})"

    def __str__(self) -> str:
        return f"{self!r}: {self.summary() or 'not trained yet'}"

    # Events of the Trainer

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = running_trainer()
        if trainer is not None:
            self._guard(trainer)
            if self._model_card:
                write = functools.partial(add_to_model_card, trainer, self.summary)
                self._patches.replace(trainer, "create_model_card", write, permanent=True)
            self._wrapping.prepare(self._patches, trainer)
            self._add_side_network(trainer)
            resume_in_sieved_epoch(self._patches, trainer, lambda: self.policy)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end(restore=True)  # what an interrupted training may have left behind
        trainer = running_trainer()
        early = trainer in self._guarded  # the callback was there when the Trainer was made
        if trainer is not None:
            refuse_second(trainer, type(self))
            self._patch(trainer)
        try:
            self._begin(trainer, args, state, early=early, **kwargs)
        except BaseException:
            self._end(restore=True)
            raise

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._run is not None:
            self._run.begin_epoch()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._run is not None and self._run.runner is not None:
            self._run.runner.begin_step(state.global_step)
        if self._announcer is not None:
            self._announcer.meter.begin_step()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._gradient_guard is not None:
            self._gradient_guard.check()
        runner = None if self._run is None else self._run.runner
        if runner is not None and runner.missed_gradients(state.global_step):
            raise RequestError(
                f"{self.policy} needs gradients before they are clipped, which this Trainer does not expose "
                "(DeepSpeed?): choose a policy that needs none."
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._run is not None and self._run.runner is not None:
            self._run.runner.optimizer_stepped(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._run is not None and self._announcer is not None:
            self._announcer.end_step(state.global_step, kwargs.get("optimizer"))
            control.should_training_stop |= self._run.end_step(state.global_step, kwargs.get("lr_scheduler"))
            self._announcer.announce_change(args, state, control, self.log_values)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._run is not None and self._run.runner is not None:
            metrics = self._run.runner.add_metrics(kwargs.get("metrics") or {}, state.global_step)
            if metrics is not None:
                control.should_training_stop |= self._run.decide(state.global_step, metrics)
                if self._announcer is not None:
                    self._announcer.announce_change(args, state, control, self.log_values)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._run is not None:
            if not self._state_written:  # by a Trainer that does not save checkpoints through save_model
                self._save(checkpoint_folder(running_trainer(), args, state), args)
            self._state_written = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        announcer = self._announcer
        self._end(restore=self._restore)
        if announcer is not None:
            announcer.end()

    def _begin(
        self,
        trainer: Trainer | None,
        args: TrainingArguments,
        state: TrainerState,
        *,
        early: bool,
        model: nn.Module,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        if trainer is not None:
            refuse_sharding(trainer)
        model = getattr(model, "_orig_mod", model)  # FSDP2 with torch_compile passes the compiled wrapper
        self._wrapping.restore_flags(model)
        stack = self._wrapping.find_blocks(model)
        self._run = run = FreezingRun(
            self.policy,
            model,
            stack,
            training_plan(trainer, args, state, train_dataloader),
            optimizer=optimizer,
            cache=self.cache,
            eval_frozen=self._eval_frozen,
            step=state.global_step,
            saved=load_run(resumed_checkpoint(), self.policy, depth=stack.depth) if state.global_step else None,
            tokens=functools.partial(seen_tokens, train_dataloader),
        )
        self.stack, self.timeline, self._sieve = stack, run.timeline, run.sieve
        if run.ended and trainer is not None:
            logger.warning("%s ended this run at step %d: no step is left to train.", self.policy, state.global_step)
            skip_training(self._patches, trainer)
        self._announcer = announcer = Announcer(run, self.cache, trainer, args, state, quiet=self._quiet)
        self._meter = announcer.meter
        self._state_written = False
        if self.cache is not None:
            keep_host_copies(self._patches, train_dataloader)
        warn_slow_precision(args, model)
        if trainer is not None:
            self._patches.replace(trainer, "compute_loss", announcer.compute_loss)
            self._gradient_guard = GradientGuard(trainer, model, run)
            self._patches.replace(trainer, "compute_loss", self._gradient_guard.compute_loss)
        if run.sieve is not None and not run.ended:
            SievedTraining(self._patches, trainer, run, train_dataloader, early=early)
        runner = run.runner
        self._wrapping.check(trainer, model, stack.frozen(run.mask), moves=runner is not None)
        if runner is None:
            return
        check_evaluations(runner, run.plan, trainer, args, state)
        if trainer is not None and runner.collector.needs_gradients:
            on_raw_gradients(self._patches, trainer, model, lambda: runner.gradients_ready(trainer.state.global_step))

    def _guard(self, trainer: Trainer) -> None:
        """Restore the user's flags when `trainer.train()` raises."""
        self._guarded.add(trainer)
        if self._saved_weights == "delta":
            save_deltas(self._patches, trainer, self._trained, self._tower)
        on_failure(self._patches, trainer, "train", functools.partial(self._failed, trainer), permanent=True)

    def _failed(self, trainer: Trainer, error: BaseException) -> None:
        started = self._run is not None
        self.restore()
        if trainer.model is not None:
            self._wrapping.restore_flags(trainer.model)
        folder = resumed_checkpoint(error)
        if started or folder is None or trainer.model is None:
            return
        if isinstance(error, FileNotFoundError):
            refuse_incomplete(folder, error)
        if not isinstance(error, (RuntimeError, ValueError)):
            return
        saved = SavedRun.load(folder)  # torch reports another depth as parameter groups that do not match
        if saved is not None:
            try:
                refuse_other_depth(folder, saved, blocks_for(trainer.model, self._tower, self.policy).depth)
            except RequestError as request:
                raise request from error

    def _add_side_network(self, trainer: Trainer) -> None:
        """Add the side network of the policy. The Trainer creates the optimizer later."""
        side = self.policy.side
        if side is None or trainer.model is None:
            return
        with torch.random.fork_rng(devices=[]):  # the network is created on the CPU
            torch.default_generator.manual_seed(trainer.args.seed)
            add_side_network(trainer.model, **side._asdict(), tower=self._tower)

    def _trained(self) -> set[str] | None:
        """Names of the parameters that have been trained so far. None before the first training."""
        if self.stack is None:
            return None
        frozen = [self.stack.frozen(change.mask) for change in self.timeline]
        parameters = [p for unit in self.stack.units for p in unit.parameters if p.trainable]
        return {p.name for p in parameters if any(p.name not in names for names in frozen)}

    def _patch(self, trainer: Trainer) -> None:
        if trainer not in self._guarded:  # added after the Trainer was made: its train() is already running
            self._guard(trainer)
            on_failure(self._patches, trainer, "training_step", lambda _: self.restore())
        self._patches.replace(trainer, "log", self._log_with_summary)
        self._patches.replace(trainer, "save_model", functools.partial(self._save_model, trainer))

    def _save_model(
        self, trainer: Trainer, original: Callable[..., Any], output_dir: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Write the freezing state after the model, before the Trainer completes the checkpoint and deletes others."""
        original(output_dir, *args, **kwargs)
        if output_dir is not None and self._run is not None:
            folder = checkpoint_folder(trainer, trainer.args, trainer.state)
            if Path(output_dir) == folder:
                self._save(folder, trainer.args)
                self._state_written = True

    def _save(self, folder: Path, args: TrainingArguments) -> None:
        if self._run is not None:
            saved = self._run.save()  # in every process, because sharded tensors are gathered
            if args.should_save:
                saved.save(folder)

    def _log_with_summary(self, original: Callable[..., Any], logs: dict[str, float], *args: Any, **kwargs: Any) -> Any:
        return original({**logs, **self.log_values()}, *args, **kwargs)

    def _end(self, *, restore: bool) -> None:
        self._patches.remove()
        self._gradient_guard = self._announcer = None
        if self._run is not None:
            run, self._run = self._run, None
            run.close(restore=restore)
