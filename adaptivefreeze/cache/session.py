"""The prefix cache at work in one training run."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.cost import filling_pays
from ..model.eval_mode import eval_mode
from ..model.input_gradients import checkpoints_reentrantly
from ..model.mask import FreezeMask
from ..model.sharding import is_sharded
from .bypass import Bypass
from .check import PaddingCheck, check_bypass
from .disk import DiskRows
from .fingerprint import PrefixFingerprints
from .forms import Unsuitable
from .inputs import InputReader
from .int8 import Int8Linears
from .keys import Batch
from .prefix import PrefixCache
from .rows import PrefixRows
from .stats import CacheStats, TrainingLookups

logger = logging.getLogger(__name__)

_USEFUL_SHARE = 0.05  # the run is given up when a smaller share of the examples fits into memory


class CacheSession:
    """Applies a prefix cache to one model during one training run.

    The session wraps the forward pass of the model's tower until `detach`. It is inactive until `move` sets a mask with
    a frozen prefix. `FreezeCallback` manages the session of a Trainer.

    Args:
        cache: The settings. Rows of an earlier run are reused if its frozen weights were the same.
        model: The model.
        stack: Its units.
        taps: Boundaries, as in `Bypass`, whose hidden states are stored besides that at the boundary of the mask.
        seed: Seed of the dropout in rows, if the cache stores several per example.
        epoch: Number of the next pass over the data, counted from 0.
        partial: Whether the next pass begins in its middle, because the run is resumed there.

    Attributes:
        stats: Statistics of this run.
        paused: Whether the forward pass runs as without a cache.

    Example:
        In a plain PyTorch loop:

        ```python
        with freeze(model, BottomUp(6), optimizer=optimizer) as run:
            session = CacheSession(PrefixCache(), model, run.stack)
            session.move(run.mask)
            for epoch in range(3):
                session.next_epoch()
                train(model, optimizer)
            session.detach()
        ```
    """

    def __init__(
        self,
        cache: PrefixCache,
        model: nn.Module,
        stack: BlockStack,
        *,
        taps: Sequence[int] = (),
        seed: int = 0,
        epoch: int = 0,
        partial: bool = False,
    ) -> None:
        self.stats = CacheStats()
        self.paused = False
        self._settings = cache
        self._model = model
        self._stack = stack
        self._seed = seed
        self._tower = model.get_submodule(stack.tower)
        self._modules = list(self._tower.modules())
        self._fingerprints = PrefixFingerprints(model, stack)
        self._store = cache.state.start_run(self._fingerprints, stack.depth, self.stats)
        self._disk = None if cache.disk is None else DiskRows(cache.disk)
        self._inputs = InputReader(model, self._tower, stack)
        self._bypass = Bypass(model, stack, taps)
        self._outer_forward = vars(self._tower).get("forward")
        self._original: Callable[..., Any] = self._tower.forward
        self._rows = PrefixRows(
            self._bypass,
            self._original,
            self._modules,
            self._fingerprints,
            self._store,
            self._disk,
            cache.precision,
            self.stats,
            Int8Linears(self._modules, self._fingerprints.device) if cache.compute == "int8" else None,
        )
        self._variant: tuple[object, ...] = () if cache.precision == "exact" and not taps else (*taps, cache.precision)
        if cache.compute != "exact":
            self._variant = (*self._variant, "computed", cache.compute)
        # Lookups depend on the content of a batch. Traced by torch.compile, they would be compiled for every example.
        dynamo: Any = sys.modules.get("torch._dynamo")
        self._skip_prefix = self._look_up_and_run if dynamo is None else dynamo.disable(self._look_up_and_run)
        self._tower.forward = functools.update_wrapper(functools.partial(self._forward), self._original)
        self._boundary = 0  # number of frozen leading units to skip
        self._verified: set[bool] = set()  # the batches checked at this boundary: packed ones, and others
        self._padding = PaddingCheck(self._include_padding)
        self._reentrant = False  # whether the model uses reentrant activation checkpointing
        # The prefix has been skipped in training. Its output is computed as for a row from then on, stored or not.
        self._served = False
        self._lowest = 0  # the lowest boundary of rows that may be stored, or 0 if there are none
        self._final = False  # disabled for the rest of the run, whatever the mask
        self._unsuitable = False  # the prefix cannot be skipped at all
        self._epoch = epoch - 1
        self._examples: int | None = None
        self._lookups = TrainingLookups(versions=max(1, cache.passes), partial=partial)
        if is_sharded(model):
            self._stop_skipping(
                "the parameters are sharded over processes, which must all run the same blocks, while each process "
                "finds other examples"
            )

    def move(self, mask: FreezeMask, *, passes: float | None = None, examples: int | None = None) -> None:
        """Skip the frozen prefix of `mask` from now on.

        Rows above the new boundary are dropped. Rows below it are kept, and the units between are run when an example
        is next looked up. If filling the cache would not pay for this mask, the cache is disabled until the next call.

        Args:
            mask: The mask in force.
            passes: Number of passes over the training data that are left, or None if unknown.
            examples: Number of training examples, or None if unknown.
        """
        boundary = self._set_boundary(mask, examples)
        if not boundary or self._final:
            return
        # Whether rows are left depends on the lookups since the last move. The decision must not, because a run that
        # is resumed starts with an empty memory.
        empty = not self._lowest and not len(self._store) and self._disk is None
        if empty and passes is not None and not filling_pays(self._stack, mask, passes):
            self._disable(f"filling it does not pay with {passes:.1f} passes over the data left")
        else:
            self.stats.disabled_reason = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run as plain JSON. Rows, and counts of the lookups of rows, are not part of it."""
        return {
            "disabled_reason": self.stats.disabled_reason,
            "final": self._final,
            "unsuitable": self._unsuitable,
            "served": self._served,
            "lowest": self._lowest,
            "with_padding": self._inputs.with_padding,
        }

    def resume(self, mask: FreezeMask, state: Mapping[str, Any], *, examples: int | None = None) -> None:
        """Continue an interrupted run. Call it instead of the first `move`.

        Args:
            mask: The mask in force.
            state: The `state_dict` of the interrupted run.
            examples: Number of training examples, or None if unknown.
        """
        self.stats.disabled_reason = state["disabled_reason"]
        self._final, self._unsuitable = state["final"], state["unsuitable"]
        self._lowest, self._inputs.with_padding = state["lowest"], state["with_padding"]
        self._served = state["served"]
        self._set_boundary(mask, examples)

    def continue_serving(self) -> None:
        """Compute the output of the prefix as for a row from the first step on, even if no rows are stored."""
        self._served = True

    def next_epoch(self) -> None:
        """Start a new pass over the data. All values of the frozen prefix are compared with those the rows are from."""
        self._epoch += 1
        active = bool(self._boundary) and self._storing
        self._lookups.next_epoch(storing=active)
        if active:
            self._drop_outdated(refresh=True)

    def detach(self) -> None:
        """Restore the forward pass of the model. The rows stay with the `PrefixCache`."""
        if self._outer_forward is None:
            del self._tower.forward
        else:
            self._tower.forward = self._outer_forward
        self._bypass.remove()
        if self._disk is not None:
            self._disk.close()

    @property
    def row_bytes(self) -> int:
        """Size of the hidden states in all rows in memory, in bytes."""
        return self._store.row_bytes

    @property
    def _storing(self) -> bool:
        """Whether rows are looked up and stored."""
        return self.stats.disabled_reason is None

    def _set_boundary(self, mask: FreezeMask, examples: int | None) -> int:
        self._rows.forget_weights()
        prefix = self._stack.prefix(mask)
        boundary = prefix if prefix >= 2 else 0
        self._fingerprints.forget(self._boundary)  # the units above have been trained
        self._store.drop_above(boundary)
        if boundary < self._lowest:
            self._lowest = 0
        self._examples = examples
        self._verified = set()
        self._reentrant = checkpoints_reentrantly(self._model)
        # Misses after rows were dropped do not mean that examples never repeat. Rows with dropout are not carried up.
        if boundary < self._boundary or (self._settings.passes and boundary > self._boundary):
            self._lookups.restart()
        self._boundary = boundary
        return boundary

    def _lower_boundary(self, deepest: int | None) -> None:
        """Keep a hidden state that the model around the tower reads (LLaVA) out of the skipped units."""
        if deepest is None or deepest >= self._boundary:
            return
        if deepest < 2:
            raise Unsuitable("the output of its embeddings is requested")
        self._boundary = deepest
        self._store.drop_above(deepest)
        self._verified = set()

    # One forward pass of the tower

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        training = self._tower.training
        active = self._boundary and (self._storing or (training and self._served))
        if not active or self.paused or self._bypass.running:
            return self._original(*args, **kwargs)
        if self._unsuitable:
            return self._run_whole(*args, **kwargs)
        return self._skip_prefix(*args, **kwargs)

    def _look_up_and_run(self, *args: Any, **kwargs: Any) -> Any:
        training = self._tower.training
        begin = time.perf_counter()
        drawn = bool(self._settings.passes) and training
        drawing = (self._seed, self._epoch % self._settings.passes) if drawn else ()
        variant = (*drawing, *self._variant) or None
        try:
            batch = self._inputs.read(args, kwargs, variant)
            self._lower_boundary(batch.deepest)
        except Unsuitable as reason:
            if training:  # a single evaluation may need the whole pass; a training step will need it again
                self._stop_skipping(str(reason))
            return self._run_whole(*args, **kwargs)
        try:
            if self._storing:
                self._drop_outdated()
            if (batch.spans is not None) not in self._verified or not self._bypass.knows(batch):
                batch = self._verify(batch, lambda: self._inputs.read(args, kwargs, variant))
            hits, computing = self.stats.hits, 0.0
            if self._storing:
                hidden, computing = self._rows.hidden(batch, self._boundary, drawn=drawn)
                if training:
                    self._lookups.count(batch.size, self.stats.hits - hits)
            unchecked = training and batch.padded and not self._padding.done
            if not self._storing or (unchecked and self.stats.hits > hits):
                hidden = self._rows.rounded(self._rows.run(batch, self._boundary, drawn=drawn))
            if training and self._settings.dropout:
                hidden = nn.functional.dropout(hidden, self._settings.dropout, inplace=False)
            checking = unchecked and torch.is_grad_enabled()
            if training and self._reentrant and torch.is_grad_enabled():
                hidden = hidden.detach().requires_grad_()  # it computes gradients only behind an input that needs one
            elif checking and self._boundary > self._stack.depth:
                hidden = hidden.detach().requires_grad_().clone()  # no block trains, so that nothing else needs one
            if self._storing:
                self.stats.seconds_spent += time.perf_counter() - begin - computing
                self._rows.update_sizes()
            output = self._bypass.from_boundary(self._original, batch, self._boundary, hidden)
        except Unsuitable as error:
            failure = str(error)
        except Exception as error:  # a run that would train without a cache goes on
            failure = f"skipping the prefix failed ({type(error).__name__}: {error})"
        else:
            if checking:
                self._padding.observe(output, batch)
            self._served |= training
            if self._storing:
                self._lowest = min(self._lowest or self._boundary, self._boundary)
                self._disable_if_useless()
            return output
        self._stop_skipping(failure)
        return self._run_whole(*args, **kwargs)

    def _verify(self, batch: Batch, read: Callable[[], Batch]) -> Batch:
        """Check that skipping the prefix leaves the output of `batch` as it is, if need be with padding in its rows.

        Args:
            batch: The batch.
            read: Reads the same batch again.

        Returns:
            The batch to look up.

        Raises:
            Unsuitable: If the output differs either way.
        """
        try:
            check_bypass(self._bypass, self._original, batch, self._boundary, self._modules)
        except Unsuitable as reason:
            if batch.tokens is None:
                raise
            self._inputs.with_padding = True
            batch = read()
            try:
                check_bypass(self._bypass, self._original, batch, self._boundary, self._modules)
            except Unsuitable:
                raise reason from None
            logger.info("Cached rows include padding: %s.", reason)
        self._verified.add(batch.spans is not None)
        return batch

    def _include_padding(self, reason: str) -> None:
        if not self._inputs.with_padding:
            logger.info("%s: cached rows include padding.", reason)
            self._inputs.with_padding = True
            self._verified = set()
            self._store.drop_above(0)
            self._lookups.restart()

    def _run_whole(self, *args: Any, **kwargs: Any) -> Any:
        """Run the tower as without a cache, but for the mode of a prefix that was skipped before."""
        if not self._served or self._settings.passes:
            return self._original(*args, **kwargs)
        units = self._stack.units[: self._boundary]
        prefix = [m for u in units for path in u.modules for m in self._model.get_submodule(path).modules()]
        with eval_mode(prefix):
            return self._original(*args, **kwargs)

    # Outdated rows, and disabling

    def _drop_outdated(self, *, refresh: bool = False) -> None:
        first = self._fingerprints.changed(self._boundary, refresh=refresh)
        if first is None:
            return
        self._rows.forget_weights()
        if self._store.drop_above(first):
            logger.warning("The values of a frozen unit changed: the cached rows computed from them are dropped.")

    def _disable_if_useless(self) -> None:
        if self._lookups.rarely_repeat(self._examples):
            self._disable("hardly any example is found again (do the inputs change every epoch?)", final=True)
        elif self._examples and self._store.refused and len(self._store) < _USEFUL_SHARE * self._examples:
            budget = self._settings.state.budget
            self._disable(f"{budget} bytes hold {len(self._store)} of {self._examples} examples", final=True)

    def _stop_skipping(self, reason: str) -> None:
        self._unsuitable = True
        self._disable(reason, final=True)

    def _disable(self, reason: str, *, final: bool = False) -> None:
        if self.stats.disabled_reason is None:
            logger.warning("Prefix cache disabled: %s.", reason)
        self.stats.disabled_reason = reason
        self._final |= final
        self._lowest = 0
        self._store.drop_above(0)
