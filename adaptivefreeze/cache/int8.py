"""Matrix products in 8 bits for the pass that fills the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from ..errors import RequestError
from .precision import autocast_dtype

_LARGEST = 127


class _Weight(NamedTuple):
    """The weight of a linear layer in 8 bits: values of shape (in, out), and a scale for each output."""

    version: tuple[int, int]
    values: torch.Tensor
    scale: torch.Tensor


class Int8Linears:
    """Runs the linear layers of frozen units in 8 bits, on demand.

    The weight of a layer has a scale for each output, and its input one for each token, so that a token's result does
    not depend on the rest of the batch. All other operations stay as they are.

    `torch.ao.quantization.quantize_dynamic` is not used: it is deprecated, and has one scale for the whole input, with
    which the hidden states of an encoder with large single dimensions change far more.

    Args:
        modules: The modules of the model. Linear layers whose forward pass is replaced already stay as they are.
        device: The device of the model.

    Raises:
        RequestError: The device is not a CPU, or this torch has no product of 8-bit matrices.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        if device.type != "cpu" or not hasattr(torch, "_int_mm"):
            where = f"the model is on {device.type}" if device.type != "cpu" else "this version of torch has none"
            raise RequestError(f"compute='int8' needs a product of 8-bit matrices on the CPU, but {where}: omit it.")
        self._linears = [m for m in modules if type(m) is nn.Linear and "forward" not in vars(m)]
        self._weights: dict[nn.Linear, _Weight] = {}

    def forget(self) -> None:
        """Round the weights again when they are next used. Fused optimizers and `tensor.data` change no version."""
        self._weights.clear()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run all linear layers in 8 bits inside of this context."""
        for linear in self._linears:
            vars(linear)["forward"] = self._forward_of(linear)
        try:
            yield
        finally:
            for linear in self._linears:
                del linear.forward

    def _forward_of(self, linear: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(hidden: torch.Tensor) -> torch.Tensor:
            weight = self._weights.get(linear)
            if weight is None or weight.version != _version(linear):
                weight = self._weights[linear] = _rounded(linear)
            rows = hidden.reshape(-1, hidden.shape[-1]).float()
            scale = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
            products = torch._int_mm((rows / scale).round_().to(torch.int8), weight.values)
            result = products.float().mul_(scale).mul_(weight.scale)
            if linear.bias is not None:
                result += linear.bias
            dtype = autocast_dtype(hidden.device) or hidden.dtype
            return result.to(dtype).reshape(*hidden.shape[:-1], -1)

        return forward


def _version(linear: nn.Linear) -> tuple[int, int]:
    return linear.weight._version, linear.weight.data_ptr()


def _rounded(linear: nn.Linear) -> _Weight:
    weight = linear.weight.detach().float()
    scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
    return _Weight(_version(linear), (weight / scale[:, None]).round_().to(torch.int8).t().contiguous(), scale)
