"""The prefix cache at work in one training run."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.cost import filling_pays
from ..model.eval_mode import eval_mode
from ..model.mask import FreezeMask
from .bypass import Bypass
from .check import check_bypass, check_shape
from .disk import DiskRows
from .fingerprint import PrefixFingerprints
from .forms import Unsuitable
from .inputs import InputReader
from .keys import Batch
from .prefix import PrefixCache
from .stats import CacheStats

logger = logging.getLogger(__name__)

# A run is given up when fewer than this share of lookups hit, or of examples fit into memory.
_USEFUL_SHARE = 0.05
_ASSUMED_EXAMPLES = 10_000  # where the number of training examples is unknown


class CacheSession:
    """Applies a prefix cache to one model during one training run.

    The session wraps the forward pass of the model's tower until `detach`. It is inactive until `move` sets a mask with
    a frozen prefix. `FreezeCallback` manages the session of a Trainer.

    Args:
        cache: The settings. Rows of an earlier run are reused if its frozen weights were the same.
        model: The model.
        stack: Its units.

    Attributes:
        stats: Statistics of this run.

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

    def __init__(self, cache: PrefixCache, model: nn.Module, stack: BlockStack) -> None:
        self.stats = CacheStats()
        self._settings = cache
        self._stack = stack
        self._tower = model.get_submodule(stack.tower)
        self._modules = list(self._tower.modules())
        self._fingerprints = PrefixFingerprints(model, stack)
        self._store = cache.state.start_run(self._fingerprints, stack.depth, self.stats)
        self._disk = None if cache.disk is None else DiskRows(cache.disk)
        self._inputs = InputReader(self._tower, stack)
        self._bypass = Bypass(model, stack)
        self._outer_forward = vars(self._tower).get("forward")
        self._original: Callable[..., Any] = self._tower.forward
        self._tower.forward = functools.update_wrapper(functools.partial(self._forward), self._original)
        self._boundary = 0  # number of frozen leading units to skip
        self._verified = False  # whether the bypass was checked at this boundary
        self._disabled = False  # for the rest of the run, whatever the mask
        self._epoch = -1
        self._examples: int | None = None
        self._training_rows = self._training_hits = 0
        self._prefix_seconds, self._prefix_rows = 0.0, 0

    def move(self, mask: FreezeMask, *, passes: float | None = None, examples: int | None = None) -> None:
        """Skip the frozen prefix of `mask` from now on.

        Rows above the new boundary are dropped. Rows below it are kept, and the units between are run when an example
        is next looked up. If filling the cache would not pay for this mask, the cache is disabled until the next call.

        Args:
            mask: The mask in force.
            passes: Number of passes over the training data that are left, or None if unknown.
            examples: Number of training examples, or None if unknown.
        """
        boundary = mask.prefix if mask.prefix >= 2 else 0
        self._store.drop_above(boundary)
        self._examples = examples
        self._verified = False
        if self._disabled:
            return
        if boundary < self._boundary:  # misses after rows were dropped do not mean that examples never repeat
            self._training_rows = self._training_hits = 0
        self._boundary = boundary
        if not boundary:
            return
        empty = not len(self._store) and self._disk is None
        if empty and passes is not None and not filling_pays(self._stack, mask, passes):
            self._disable(f"filling it does not pay with {passes:.1f} passes over the data left")
        else:
            self.stats.disabled_reason = None

    def next_epoch(self) -> None:
        """Start a new pass over the data. All values of the frozen prefix are compared with those the rows are from."""
        self._epoch += 1
        if self._boundary:
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

    # One forward pass of the tower

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._boundary or self._bypass.running:
            return self._original(*args, **kwargs)
        begin = time.perf_counter()
        training, passes = self._tower.training, self._settings.passes
        variant = self._epoch % passes if passes and training else None
        try:
            batch = self._inputs.read(args, kwargs, variant)
        except Unsuitable as reason:
            if training:  # a single evaluation may need the whole pass; a training step will need it again
                self._disable_for_run(str(reason))
            return self._original(*args, **kwargs)
        try:
            self._drop_outdated()
            if not self._verified or not self._bypass.knows(batch):
                try:
                    check_bypass(self._bypass, self._original, batch, self._boundary, self._modules)
                except Unsuitable:
                    if batch.tokens is None:
                        raise
                    self._inputs.with_padding = True
                    batch = self._inputs.read(args, kwargs, variant)
                    check_bypass(self._bypass, self._original, batch, self._boundary, self._modules)
                self._verified = True
            hidden, computing = self._hidden(batch)
            if training and self._settings.dropout:
                hidden = nn.functional.dropout(hidden, self._settings.dropout, inplace=False)
            self._count_cost(time.perf_counter() - begin - computing)
            output = self._bypass.from_boundary(self._original, batch, self._boundary, hidden)
        except Unsuitable as error:
            failure = str(error)
        except Exception as error:  # a run that would train without a cache goes on
            failure = f"skipping the prefix failed ({type(error).__name__}: {error})"
        else:
            self._disable_if_useless()
            return output
        self._disable_for_run(failure)
        return self._original(*args, **kwargs)

    def _count_cost(self, seconds: float) -> None:
        self.stats.seconds_spent += seconds
        self.stats.memory_bytes, self.stats.rows = self._store.used_bytes, len(self._store)
        self.stats.refused = self._store.refused
        if self._disk is not None:
            self.stats.disk_bytes = self._disk.bytes

    def _hidden(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """The hidden state at the boundary, (batch, tokens, hidden), and the seconds that running units took."""
        found: dict[int, list[int]] = {}  # boundary -> examples found there; 0 for those not found
        rows: dict[int, torch.Tensor] = {}
        for index, key in enumerate(batch.keys):
            boundary, row = self._look_up(key)
            found.setdefault(boundary, []).append(index)
            if row is not None:
                rows[index] = row
        self._count(batch.size, batch.size - len(found.get(0, ())))
        computing = 0.0
        whole: torch.Tensor | None = None
        for boundary, indices in sorted(found.items()):
            if boundary == self._boundary:
                continue
            part = batch.select(indices)
            start = part.assemble([rows[i] for i in indices]) if boundary else None
            begin = time.perf_counter()
            result = self._run_prefix(part, boundary, start)
            seconds = time.perf_counter() - begin
            computing += seconds
            if boundary:
                self.stats.carried += len(indices)
            else:
                self._prefix_seconds += seconds
                self._prefix_rows += len(indices)
            for position, index in enumerate(indices):
                row = result[position] if batch.real is None else result[position, batch.real[index]]
                self._keep(batch.keys[index], row)
                rows[index] = row
            if len(indices) == batch.size:
                whole = result
        if self._prefix_rows:
            self.stats.seconds_saved += len(found.get(self._boundary, ())) * self._prefix_seconds / self._prefix_rows
        return (whole if whole is not None else batch.assemble([rows[i] for i in range(batch.size)])), computing

    def _look_up(self, key: bytes) -> tuple[int, torch.Tensor | None]:
        """The deepest boundary, up to the present one, with a row of the example, and the row; (0, None) for none."""
        known = self._store.boundary(key) or 0
        if known < self._boundary and self._disk is not None:
            for boundary in range(self._boundary, max(known, 1), -1):
                row = self._disk.get(self._fingerprints.chain(boundary), key)
                if row is not None:
                    self._store.put(key, boundary, row)
                    return boundary, row
        return known, self._store.get(key) if known else None

    def _keep(self, key: bytes, row: torch.Tensor) -> None:
        self._store.put(key, self._boundary, row)
        if self._disk is not None:
            self._disk.put(self._fingerprints.chain(self._boundary), key, row)

    def _run_prefix(self, batch: Batch, start: int, hidden: torch.Tensor | None) -> torch.Tensor:
        with_dropout = self._settings.passes and self._tower.training
        with torch.no_grad(), nullcontext() if with_dropout else eval_mode(self._modules):
            result = self._bypass.from_inputs(self._original, batch, self._boundary, start=start, hidden=hidden)
        check_shape(result, batch, self._boundary)
        return result

    def _count(self, examples: int, hits: int) -> None:
        self.stats.hits += hits
        self.stats.misses += examples - hits
        if self._tower.training:
            self._training_rows += examples
            self._training_hits += hits

    # Outdated rows, and disabling

    def _drop_outdated(self, *, refresh: bool = False) -> None:
        first = self._fingerprints.changed(self._boundary, refresh=refresh)
        if first is not None and self._store.drop_above(first):
            logger.warning("The values of a frozen unit changed: the cached rows computed from them are dropped.")

    def _disable_if_useless(self) -> None:
        enough = 1.25 * max(1, self._settings.passes) * (self._examples or _ASSUMED_EXAMPLES)
        if self._training_rows > enough and self._training_hits < _USEFUL_SHARE * self._training_rows:
            self._disable_for_run("hardly any example is found again (do the inputs change every epoch?)")
        elif self._examples and self._store.refused and len(self._store) < _USEFUL_SHARE * self._examples:
            budget = self._settings.state.budget
            self._disable_for_run(f"{budget} bytes hold {len(self._store)} of {self._examples} examples")

    def _disable_for_run(self, reason: str) -> None:
        self._disabled = True
        self._disable(reason)

    def _disable(self, reason: str) -> None:
        if self.stats.disabled_reason is None:
            logger.warning("Prefix cache disabled: %s.", reason)
        self.stats.disabled_reason = reason
        self._boundary = 0
        self._store.drop_above(0)
