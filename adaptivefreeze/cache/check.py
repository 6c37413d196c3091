"""The check before first use: does a bypass give what the whole forward pass gives, on a real batch?"""

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
    """Compare the bypass at `boundary` with the whole `forward` on `batch`, in another width than its rows had.

    `modules` are those of the tower, put into eval mode for the while. Raises `Unsuitable` with the reason where the
    two differ at a real position, or where the model cannot be run so.
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
        except Exception as error:  # whatever a model's code does when its blocks are skipped, it must not run so
            raise Unsuitable(f"its forward pass cannot be bypassed ({type(error).__name__}: {error})") from error
    # Weights cast under no_grad must not serve the training pass that follows (pytorch caches them by autocast).
    torch.clear_autocast_cache()
    rounding = torch.is_autocast_enabled(whole.device.type) or whole.dtype not in TOLERANCE
    tolerance = HALF_TOLERANCE if rounding else TOLERANCE[whole.dtype]
    for index, at in enumerate(real):
        expected = whole[index, at]
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        if whole.shape != skipped.shape or not torch.allclose(
            expected, skipped[index, at], rtol=tolerance, atol=tolerance * scale
        ):
            raise Unsuitable("bypassing its prefix changes what the model gives")


def check_shape(hidden: torch.Tensor, batch: Batch, boundary: int) -> None:
    """Raises `Unsuitable` unless `hidden` has a vector for each token of each example."""
    expected = (batch.size,) if batch.tokens is None else (batch.size, batch.tokens)
    if tuple(hidden.shape[: len(expected)]) != expected:
        raise Unsuitable(f"block {boundary - 2} gives {tuple(hidden.shape)} for a batch of {expected}")


def _widened(batch: Batch) -> Batch:
    """The batch with padded columns at its right, so that its width is neither its rows' nor its size."""
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
        raise Unsuitable(f"it gives a {type(output).__name__}, not a hidden state")
    return value
