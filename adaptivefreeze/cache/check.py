"""Checks before rows are trusted, on real batches.

`check_bypass` compares the output of a bypass with that of the whole forward pass. `PaddingCheck` finds out whether the
loss reads padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..model.eval_mode import eval_mode
from .bypass import Bypass
from .forms import Unsuitable
from .keys import MASK, Batch
from .precision import autocast_dtype

PADDED_COLUMNS = 3
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
HALF_TOLERANCE = 5e-2
EQUAL_SHAPES = {torch.float32: 1e-6, torch.float64: 1e-12}
HALF_EQUAL_SHAPES = 1e-2


def check_bypass(
    bypass: Bypass, forward: Callable[..., Any], batch: Batch, boundary: int, modules: Sequence[nn.Module]
) -> None:
    """Compare the output of a bypass with that of the whole forward pass.

    The bypass first gets the hidden state of the whole pass itself. All outputs have to be the same: only a read of
    what was skipped can make a difference. It then gets rows from a narrower batch, as happens with batches of mixed
    lengths, computed half of the batch at a time. Padding is not compared. All passes run in evaluation mode, and the
    random state does not change.

    Args:
        bypass: The bypass. It also learns the shapes of the modules below the boundary.
        forward: The tower's forward pass.
        batch: A batch from the training data.
        boundary: The number of leading units to skip.
        modules: All modules of the tower.

    Raises:
        Unsuitable: If the outputs differ, or if the model cannot be run this way.
    """
    batch = replace(batch, loss={})
    wide, narrow = _with_padding(batch)
    cuda = [t.device.index or 0 for t in batch.tensors.values() if t.is_cuda][:1]
    with torch.no_grad(), torch.random.fork_rng(devices=cuda), eval_mode(modules):
        try:
            whole, reached = bypass.learn(forward, wide, boundary)
            _choose_mode(bypass, forward, wide, boundary, whole, reached)
            rows = [row for part in _halves(narrow) for row in _rows(bypass, forward, part, boundary)]
            skipped = bypass.from_boundary(forward, wide, boundary, wide.assemble(rows))
        except Unsuitable:
            raise
        except Exception as error:  # a model's own code may raise anything when its blocks are skipped
            raise Unsuitable(_cannot(error)) from error
    # Autocast caches weights that were cast under no_grad. The training pass that follows must not use them.
    torch.clear_autocast_cache()
    if not _same_outputs(whole, skipped, wide, TOLERANCE, HALF_TOLERANCE):
        raise Unsuitable("its output for a row depends on the padding or on the other rows of the batch")


def _rows(bypass: Bypass, forward: Callable[..., Any], batch: Batch, boundary: int) -> list[torch.Tensor]:
    hidden = bypass.from_inputs(forward, batch, boundary)
    check_shape(hidden, batch, boundary)
    return [batch.row(hidden, index) for index in range(batch.size)]


def _halves(batch: Batch) -> list[Batch]:
    half = (batch.size + 1) // 2
    return [batch.select(rows) for rows in (range(half), range(half, batch.size)) if rows]


def _choose_mode(
    bypass: Bypass, forward: Callable[..., Any], batch: Batch, boundary: int, whole: Any, hidden: torch.Tensor
) -> None:
    """Find the cheapest mode of the bypass in which every output is that of the whole pass from the same hidden state.

    The shapes are equal here, so only the order of atomic additions may differ.
    """
    reason: Unsuitable | None = None
    for runs_embeddings, runs_extras in bypass.modes:
        bypass.runs_embeddings, bypass.runs_extras = runs_embeddings, runs_extras
        try:
            skipped = bypass.from_boundary(forward, batch, boundary, hidden)
            if _same_outputs(whole, skipped, batch, EQUAL_SHAPES, HALF_EQUAL_SHAPES):
                return
        except Unsuitable as error:
            reason = reason or error
        except Exception as error:  # a model's own code may raise anything when its blocks are skipped
            reason = reason or Unsuitable(_cannot(error))
    raise reason or Unsuitable("skipping its prefix changes the output of the model")


def _cannot(error: Exception) -> str:
    return f"its forward pass cannot be bypassed ({type(error).__name__}: {error})"


def _same_outputs(whole: Any, skipped: Any, batch: Batch, tolerances: Mapping[torch.dtype, float], half: float) -> bool:
    """Compare all tensors in two outputs of a tower, at real positions where they have a value for each token."""
    if isinstance(whole, torch.Tensor):
        rounded = autocast_dtype(whole.device) is not None
        tolerance = half if rounded else tolerances.get(whole.dtype, half)
        by_token = whole.shape[:2] == (batch.height, batch.tokens)
        return isinstance(skipped, torch.Tensor) and _equal(whole, skipped, tolerance, batch.real if by_token else None)
    if not isinstance(whole, (tuple, list, dict)):
        return True
    if type(whole) is not type(skipped) or len(whole) != len(skipped):
        return False
    values, others = (tuple(o.values() if isinstance(o, dict) else o) for o in (whole, skipped))
    return all(_same_outputs(v, o, batch, tolerances, half) for v, o in zip(values, others, strict=True))


def _equal(
    whole: torch.Tensor, skipped: torch.Tensor, tolerance: float, real: Sequence[slice | torch.Tensor] | None
) -> bool:
    if whole.shape != skipped.shape:
        return False
    if not whole.is_floating_point():
        return torch.equal(whole, skipped)
    pairs = [(whole, skipped)] if real is None else [(whole[i, at], skipped[i, at]) for i, at in enumerate(real)]
    for expected, found in pairs:
        scale = float(expected.abs().nan_to_num(0.0).max()) if expected.numel() else 0.0
        if not torch.allclose(expected, found, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return False
    return True


def check_shape(hidden: torch.Tensor, batch: Batch, boundary: int) -> None:
    """Check that `hidden` has a vector for each token of each example.

    Raises:
        Unsuitable: If it does not.
    """
    expected = (batch.height,) if batch.tokens is None else (batch.height, batch.tokens)
    if tuple(hidden.shape[: len(expected)]) != expected:
        raise Unsuitable(f"block {boundary - 2} returns shape {tuple(hidden.shape)} for a batch of shape {expected}")


def _with_padding(batch: Batch) -> tuple[Batch, Batch]:
    """The batch with padding in its last columns, and the same examples without these columns.

    The examples are cut for this: a model may have no embeddings for positions beyond the width of the batch. Columns
    are added only if an example would be left with nothing. The first width differs from the number of examples.
    """
    if batch.tokens is None or batch.real is None or MASK not in batch.tensors:
        return batch, batch
    width = batch.tokens - (batch.tokens == batch.size)
    kept = width - PADDED_COLUMNS
    real = tuple(slice(at.start, min(at.stop, kept)) if isinstance(at, slice) else at[at < kept] for at in batch.real)
    if all(_count(cut) > 0 or not _count(at) for cut, at in zip(real, batch.real, strict=True)):
        narrow = replace(batch, tensors=_columns(batch, kept), real=real, tokens=kept)
    else:
        real, narrow, kept = batch.real, batch, batch.tokens
        width = kept + PADDED_COLUMNS + (kept + PADDED_COLUMNS == batch.size)
    tensors = _columns(batch, width)
    tensors[MASK] = tensors[MASK].clone()
    tensors[MASK][:, kept:] = 0
    return replace(batch, tensors=tensors, real=real, tokens=width), narrow


def _count(at: slice | torch.Tensor) -> int:
    return at.stop - at.start if isinstance(at, slice) else len(at)


def _columns(batch: Batch, width: int) -> dict[str, torch.Tensor]:
    """The tensors of the batch, cut or filled with zeros to `width` tokens."""
    return {
        name: nn.functional.pad(t, [0, 0] * (t.dim() - 2) + [0, width - t.shape[1]])
        if t.dim() > 1 and t.shape[1] == batch.tokens
        else t
        for name, t in batch.tensors.items()
    }


class PaddingCheck:
    """Checks in a backward pass that the loss does not depend on the tower's output at padding.

    Where it does (mean pooling over all positions), padding is part of an example. The same holds for an output without
    a vector for each token, whose loss cannot be checked in this way.

    Args:
        dependent: Called with the reason if padding is part of an example.

    Attributes:
        done: Whether the backward pass of a padded batch was observed.
    """

    def __init__(self, dependent: Callable[[str], None]) -> None:
        self.done = False
        self._dependent = dependent

    def observe(self, output: Any, batch: Batch) -> None:
        """Check the gradients of `output`, the tower's output for a padded batch, once they are computed."""
        values = output.values() if isinstance(output, dict) else [output] if torch.is_tensor(output) else output
        padding = torch.ones((batch.size, batch.tokens or 0), dtype=torch.bool)
        for index, at in enumerate(batch.real or ()):
            padding[index, at] = False

        def check(gradient: torch.Tensor) -> None:
            self.done = True
            if bool(gradient[padding.to(gradient.device)].any()):
                self._dependent("The loss depends on the model's output at padding")

        by_token = [value for value in values if isinstance(value, torch.Tensor) and value.shape[:2] == padding.shape]
        for value in by_token:
            if value.requires_grad:
                value.register_hook(check)  # type: ignore[no-untyped-call]
        if not by_token:
            self.done = True
            self._dependent("The model returns no output for each token")
