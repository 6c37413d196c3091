"""PrefixCache: an example seen again costs nothing below the frozen boundary."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.cost import filling_pays
from ..model.eval_mode import eval_mode
from ..model.mask import FreezeMask
from .bypass import Bypass, Unsuitable
from .check import check_bypass, check_shape
from .disk import DiskRows
from .fingerprint import Fingerprints
from .keys import Batch, read_batch
from .size import parse_size
from .stats import CacheStats
from .store import stores_for

logger = logging.getLogger(__name__)

# What a Trainer passes through the model for the loss alone.
LOSS_ARGUMENTS = ("labels", "num_items_in_batch")


class PrefixCache:
    """Stores what the frozen prefix of a model gives for an example, and skips the prefix when it comes again.

    `memory`: budget for rows, `"4GiB"` or bytes; by default a quarter of what is free. `disk`: a folder for rows, that
    later runs with the same prefix can use. `dropout`: probability of dropout on the rows while training; the prefix
    itself runs in eval mode. `passes`: instead of one row in eval mode, so many rows an example with dropout at work,
    used in turn, epoch by epoch.

    Raises `RequestError` for a budget that is no size and for values out of range.
    """

    def __init__(
        self,
        memory: str | int | None = None,
        disk: str | Path | None = None,
        *,
        dropout: float = 0.0,
        passes: int = 0,
    ) -> None:
        self.memory = memory
        self.disk = disk
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout on cached rows must lie in [0, 1), not {dropout!r}.")
        if isinstance(passes, bool) or not isinstance(passes, int) or passes < 0:
            raise RequestError(f"passes must be a whole number, 0 or more, not {passes!r}.")
        self.dropout = dropout
        self.passes = passes
        self.stats = CacheStats()
        self._budget = parse_size(memory) if memory is not None else psutil.virtual_memory().available // 4
        self._device = torch.device("cpu")
        self._store = stores_for(self._device, self._budget)
        self._rows_on_disk: DiskRows | None = None
        self._model: nn.Module | None = None
        self._last_prints: Fingerprints | None = None
        self._boundary = 0
        self._examples: int | None = None
        self._forget_run()

    @classmethod
    def of(cls, given: PrefixCache | dict[str, Any] | bool | None) -> PrefixCache | None:
        """`given` itself, one made from these arguments, one with the defaults for True, or None for none."""
        if isinstance(given, dict):
            return cls(**given)
        if isinstance(given, PrefixCache):
            return given
        return cls() if given else None

    def arguments(self) -> dict[str, Any]:
        """What makes this cache anew, as plain JSON."""
        disk = None if self.disk is None else str(self.disk)
        return {"memory": self.memory, "disk": disk, "dropout": self.dropout, "passes": self.passes}

    # One run

    def attach(self, model: nn.Module, stack: BlockStack) -> None:
        """Stand ready to skip units of `model`. Rows of an earlier run are kept if its prefix was the same."""
        self._model, self._stack = model, stack
        self._tower = model.get_submodule(stack.tower)
        self._modules = list(self._tower.modules())
        self._parameters = inspect.signature(self._tower.forward).parameters
        self._mixture = any(p.use == "expert" for unit in stack.units for p in unit.parameters)
        self._bypass = Bypass(model, stack)
        before, self._prints = self._last_prints, Fingerprints(model, stack)
        self._last_prints = self._prints
        if self._prints.device != self._device:
            self._device = self._prints.device
            self._store = stores_for(self._device, self._budget)
        if before is not None and len(self._store):
            kept = next((b for b in range(stack.depth + 1, 0, -1) if before.same(self._prints, b)), 0)
            self._store.drop_above(kept)
        if self.disk is not None:
            self._rows_on_disk = DiskRows(self.disk)
        self._outer_forward = vars(self._tower).get("forward")
        self._original: Callable[..., Any] = self._tower.forward
        wrapped = functools.partial(self._forward)
        self._tower.forward = functools.update_wrapper(wrapped, self._original)
        self._boundary = 0
        self.stats = CacheStats()
        self._forget_run()

    def move(self, mask: FreezeMask, *, passes: float | None = None, examples: int | None = None) -> None:
        """Skip the frozen prefix of `mask` from now on.

        Rows stored at a shallower boundary are carried up as they are next needed; rows above the new boundary are
        dropped. `passes`: how many more times the training data is gone through; `examples`: how many they are.
        Where filling would not pay for this mask, it stands aside until a mask comes for which it does.
        """
        boundary = mask.prefix if mask.prefix >= 2 else 0
        self._store.drop_above(boundary)
        self._examples = examples
        self._verified = False
        if self._retired:
            return
        if boundary < self._boundary:  # that no row was found is no sign where the rows had to be dropped
            self._training_rows = self._training_hits = 0
        self._boundary = boundary
        if not boundary:
            return
        empty = not len(self._store) and self.disk is None
        if empty and passes is not None and not filling_pays(self._stack, mask, passes):
            self._disable(f"with {passes:.1f} passes over the data to go, filling it would not pay")
        else:
            self.stats.disabled_reason = None

    def next_epoch(self) -> None:
        """A new pass over the data begins: every value of the prefix is compared with what rows were made from."""
        self._epoch += 1
        if self._boundary:
            self._drop_changed(refresh=True)

    def detach(self) -> None:
        """Give the model its own forward passes back. Rows stay, for another run of the same prefix."""
        if self._model is None:
            return
        if self._outer_forward is None:
            del self._tower.forward
        else:
            self._tower.forward = self._outer_forward
        self._bypass.remove()
        if self._rows_on_disk is not None:
            self._rows_on_disk.close()
            self._rows_on_disk = None
        self._model = None

    # One forward pass of the tower

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._boundary or self._bypass.running:
            return self._original(*args, **kwargs)
        begin = time.perf_counter()
        batch = self._readable(args, kwargs)
        if batch is None:
            return self._original(*args, **kwargs)
        try:
            self._drop_changed()
            if not self._verified or not self._bypass.knows(batch):
                check_bypass(self._bypass, self._original, batch, self._boundary, self._modules)
                self._verified = True
            hidden, computing = self._hidden(batch)
        except Unsuitable as reason:
            self._retire(str(reason))
            return self._original(*args, **kwargs)
        if self._tower.training and self.dropout:
            hidden = nn.functional.dropout(hidden, self.dropout, inplace=False)
        self.stats.seconds_spent += time.perf_counter() - begin - computing
        self.stats.memory_bytes, self.stats.rows = self._store.used_bytes, len(self._store)
        self.stats.refused = self._store.refused
        if self._rows_on_disk is not None:
            self.stats.disk_bytes = self._rows_on_disk.bytes
        self._retire_if_useless()
        return self._bypass.from_boundary(self._original, batch, self._boundary, hidden)

    def _readable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch | None:
        """The inputs, where the bypass may serve them; None for a call that must run whole.

        A single call in evaluation may ask for what is skipped; a training step that does will do so again.
        """
        given = dict(zip(self._parameters, args, strict=False)) | kwargs
        given = {name: value for name, value in given.items() if value is not None and name not in LOSS_ARGUMENTS}
        config = getattr(self._tower, "config", None)
        tensors = {n: v for n, v in given.items() if isinstance(v, torch.Tensor) and v.dim()}
        rest = {n: v.item() if isinstance(v, torch.Tensor) else v for n, v in given.items() if n not in tensors}
        if "use_cache" in self._parameters:
            rest.setdefault("use_cache", False)
        odd = next((n for n, v in rest.items() if not isinstance(v, (bool, int, float, str))), None)
        reason = None
        if any(given.get(wish, getattr(config, wish, False)) for wish in ("output_hidden_states", "output_attentions")):
            reason = "the hidden states or attentions of all blocks are asked for"
        elif any(t.requires_grad for t in tensors.values()):
            reason = "its inputs come from something that trains"
        elif odd is not None:
            reason = f"its input {odd} is a {type(rest[odd]).__name__}, whose content cannot be told"
        if reason is None:
            try:
                batch = read_batch(tensors, rest, self._salt(tensors, rest))
            except ValueError as error:
                reason = str(error)
            else:
                if not (self._mixture and batch.padded):
                    return batch
                reason = "its experts share their work between real tokens and padding"
        if self._tower.training:
            self._retire(reason)
        return None

    def _salt(self, tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> bytes:
        device = next(iter(tensors.values())).device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        turn = self._epoch % self.passes if self.passes and self._tower.training else None
        return repr((sorted(rest.items()), precision, turn)).encode()

    def _hidden(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """The hidden state at the boundary, (batch, tokens, hidden), and the seconds that running prefixes took."""
        found: dict[int, list[int]] = {}
        rows: dict[int, torch.Tensor] = {}
        for index, key in enumerate(batch.keys):
            boundary, row = self._look_up(key)
            found.setdefault(boundary, []).append(index)
            if row is not None:
                rows[index] = row
        hits = batch.size - len(found.get(0, ()))
        training = self._tower.training
        self.stats.hits += hits
        self.stats.misses += batch.size - hits
        self._training_rows += batch.size * training
        self._training_hits += hits * training
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
        """The deepest boundary up to the present one at which the example is known, and its row; 0 for none."""
        known = self._store.boundary(key) or 0
        if known < self._boundary and self._rows_on_disk is not None:
            for boundary in range(self._boundary, max(known, 1), -1):
                row = self._rows_on_disk.get(self._prints.chain(boundary), key)
                if row is not None:
                    self._store.put(key, boundary, row)
                    return boundary, row
        return known, self._store.get(key) if known else None

    def _keep(self, key: bytes, row: torch.Tensor) -> None:
        self._store.put(key, self._boundary, row)
        if self._rows_on_disk is not None:
            self._rows_on_disk.put(self._prints.chain(self._boundary), key, row)

    def _run_prefix(self, batch: Batch, start: int, hidden: torch.Tensor | None) -> torch.Tensor:
        stochastic = self.passes and self._tower.training
        with torch.no_grad(), nullcontext() if stochastic else eval_mode(self._modules):
            result = self._bypass.from_inputs(self._original, batch, self._boundary, start=start, hidden=hidden)
        check_shape(result, batch, self._boundary)
        return result

    # Knowing when not to

    def _drop_changed(self, *, refresh: bool = False) -> None:
        first = self._prints.changed(self._boundary, refresh=refresh)
        if first is not None and self._store.drop_above(first):
            logger.warning("The values of a frozen unit changed: the rows made from them are dropped.")

    def _retire_if_useless(self) -> None:
        rounds = max(1, self.passes)
        enough = 1.25 * rounds * (self._examples or 10_000)
        if self._training_rows > enough and self._training_hits < 0.05 * self._training_rows:
            self._retire("hardly any example comes again (inputs that change every epoch?)")
        elif self._examples and self._store.refused and len(self._store) < 0.05 * self._examples:
            self._retire(f"{self._budget} bytes hold {len(self._store)} of {self._examples} examples")

    def _retire(self, reason: str) -> None:
        """Stand aside for the rest of the run, whatever the masks that come."""
        self._retired = True
        self._disable(reason)

    def _disable(self, reason: str) -> None:
        if self.stats.disabled_reason is None:
            logger.warning("Prefix cache disabled: %s.", reason)
        self.stats.disabled_reason = reason
        self._boundary = 0
        self._store.drop_above(0)

    def _forget_run(self) -> None:
        self._epoch = -1
        self._verified = False
        self._retired = False
        self._examples = None
        self._training_rows = self._training_hits = 0
        self._prefix_seconds, self._prefix_rows = 0.0, 0
