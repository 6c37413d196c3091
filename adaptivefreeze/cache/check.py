"""Check before first use that a bypass has the same output as the whole forward pass, on a real batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..model.eval_mode import eval_mode
from .bypass import Bypass, Unsuitable
from .keys import Batch

PADDED_COLUMNS = 3
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
HALF_TOLERANCE = 5e-2


def check_bypass(
    bypass: Bypass, forward: Callable[..., Any], batch: Batch, boundary: int, modules: Sequence[nn.Module]
) -> None:
    """Compare the output of a bypass with that of the whole forward pass.

    The bypass gets a wider batch than the one that its rows are from, as happens with batches of mixed lengths. Padding
    is not compared. Both run in evaluation mode, and the random state does not change.

    Args:
        bypass: The bypass. It also learns the shapes of the modules below the boundary.
        forward: The tower's forward pass.
        batch: A batch from the training data.
        boundary: The number of leading units to skip.
        modules: All modules of the tower.

    Raises:
        Unsuitable: If the outputs differ, or if the model cannot be run this way.
    """
    wide = _widened(batch)
    cuda = [t.device.index or 0 for t in batch.tensors.values() if t.is_cuda][:1]
    real = batch.real or [slice(None)] * batch.size
    with torch.no_grad(), torch.random.fork_rng(devices=cuda), eval_mode(modules):
        try:
            whole = _first(bypass.learn(forward, wide))
            rows = bypass.from_inputs(forward, batch, boundary)
            check_shape(rows, batch, boundary)
            hidden = wide.assemble([rows[i, at] for i, at in enumerate(real)])
            skipped = _first(bypass.from_boundary(forward, wide, boundary, hidden))
        except Unsuitable:
            raise
        except Exception as error:  # a model's own code may raise anything when its blocks are skipped
            raise Unsuitable(f"its forward pass cannot be bypassed ({type(error).__name__}: {error})") from error
    # Autocast caches weights that were cast under no_grad. The training pass that follows must not use them.
    torch.clear_autocast_cache()
    rounding = torch.is_autocast_enabled(whole.device.type) or whole.dtype not in TOLERANCE
    tolerance = HALF_TOLERANCE if rounding else TOLERANCE[whole.dtype]
    for index, at in enumerate(real):
        expected = whole[index, at]
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        if whole.shape != skipped.shape or not torch.allclose(
            expected, skipped[index, at], rtol=tolerance, atol=tolerance * scale
        ):
            raise Unsuitable("skipping its prefix changes the output of the model")


def check_shape(hidden: torch.Tensor, batch: Batch, boundary: int) -> None:
    """Check that `hidden` has a vector for each token of each example.

    Raises:
        Unsuitable: If it does not.
    """
    expected = (batch.size,) if batch.tokens is None else (batch.size, batch.tokens)
    if tuple(hidden.shape[: len(expected)]) != expected:
        raise Unsuitable(f"block {boundary - 2} returns shape {tuple(hidden.shape)} for a batch of shape {expected}")


def _widened(batch: Batch) -> Batch:
    """The batch with columns of padding added. Its width then differs from that of its rows and from its size."""
    if batch.tokens is None or "attention_mask" not in batch.tensors:
        return batch
    extra = PADDED_COLUMNS + (batch.tokens + PADDED_COLUMNS == batch.size)
    tensors = {
        name: nn.functional.pad(t, [0, 0] * (t.dim() - 2) + [0, extra])
        if t.dim() > 1 and t.shape[1] == batch.tokens
        else t
        for name, t in batch.tensors.items()
    }
    return Batch(tensors, batch.rest, batch.keys, batch.real, batch.tokens + extra)


def _first(output: Any) -> torch.Tensor:
    value = output if isinstance(output, torch.Tensor) else output[0]
    if not isinstance(value, torch.Tensor):
        raise Unsuitable(f"it returns a {type(output).__name__}, not a hidden state")
    return value
