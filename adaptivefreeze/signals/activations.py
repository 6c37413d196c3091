"""Similarity of the examples of a probe batch, as represented by each trainable block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack, Unit
from ..model.eval_mode import eval_mode
from .base import Measure, at_least_float32
from .ranks import gather_batch

PROBE_EXAMPLES = 16


class Similarities(Measure):
    """Runs a probe batch at each decision point, in evaluation mode. It draws no random numbers.

    The batch holds the first examples of the first batch, taken over all processes.
    """

    first_rank_only = True

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._probe: dict[str, torch.Tensor] = {}

    def on_batch(self, inputs: Mapping[str, Any]) -> None:
        if not self._probe:
            own = {
                name: value[:PROBE_EXAMPLES].detach().clone()
                for name, value in inputs.items()
                if isinstance(value, torch.Tensor) and value.dim()
            }
            self._probe = {name: value[:PROBE_EXAMPLES] for name, value in gather_batch(own).items()}

    def read(self) -> dict[str, list[list[float]]]:
        if not self._probe:
            return {}
        trainable = [
            unit for unit in self.stack.blocks if any(self.parameters[p.name].requires_grad for p in unit.parameters)
        ]
        outputs = block_outputs(self.model, trainable, self._probe)
        mask = self._probe.get("attention_mask")
        return {name: _similarity(value, mask).tolist() for name, value in outputs.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self._probe)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        device = next(iter(self.parameters.values())).device
        self._probe = {name: value.to(device) for name, value in tensors.items()}


def block_outputs(model: nn.Module, blocks: Sequence[Unit], inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Run one forward pass in evaluation mode and return the outputs of some blocks.

    Args:
        model: The model.
        blocks: Units of the model.
        inputs: Keyword arguments of the forward pass.

    Returns:
        Block name -> output of shape (examples, tokens, width).
    """
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(unit.modules[-1]).register_forward_hook(_store_output(outputs, unit.name))
        for unit in blocks
    ]
    try:
        with torch.no_grad(), eval_mode(model.modules()):
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _store_output(outputs: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        outputs[name] = output if isinstance(output, torch.Tensor) else output[0]

    return hook


def _similarity(output: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return A Aᵀ with rows of length 1: (examples, tokens, width) -> (examples, examples)."""
    output = at_least_float32(output)
    if mask is not None and mask.shape == output.shape[: mask.dim()]:
        output = output * mask.reshape(*mask.shape, *[1] * (output.dim() - mask.dim()))
    flat = output.reshape(len(output), -1)
    return nn.functional.normalize(flat @ flat.T, dim=1)
