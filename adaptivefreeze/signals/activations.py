"""How alike the examples of a probe batch look to each block that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack, Unit
from .base import Measure, wide

PROBE_EXAMPLES = 16


class Similarities(Measure):
    """Runs the probe batch once a moment, in eval mode, drawing no random number."""

    of_first_rank = True

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        super().__init__(model, stack)
        self._probe: dict[str, torch.Tensor] = {}

    def batch(self, inputs: Mapping[str, Any]) -> None:
        if not self._probe:
            self._probe = {
                name: value[:PROBE_EXAMPLES].detach().clone()
                for name, value in inputs.items()
                if isinstance(value, torch.Tensor) and value.dim()
            }

    def read(self) -> dict[str, list[list[float]]]:
        if not self._probe:
            return {}
        training = [
            unit for unit in self.stack.blocks if any(self.parameters[p.name].requires_grad for p in unit.parameters)
        ]
        outputs = block_outputs(self.model, training, self._probe)
        mask = self._probe.get("attention_mask")
        return {name: _similarity(value, mask).tolist() for name, value in outputs.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self._probe)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        device = next(iter(self.parameters.values())).device
        self._probe = {name: value.to(device) for name, value in tensors.items()}


def block_outputs(model: nn.Module, blocks: Sequence[Unit], inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Name of each of `blocks` -> its output, (examples, tokens, width), of one forward pass in eval mode."""
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(unit.modules[-1]).register_forward_hook(_keep(outputs, unit.name)) for unit in blocks
    ]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for module, mode in modes:
            module.training = mode
        for handle in handles:
            handle.remove()
    return outputs


def _keep(outputs: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        outputs[name] = output if isinstance(output, torch.Tensor) else output[0]

    return hook


def _similarity(output: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(examples, tokens, width) -> (examples, examples): A Aᵀ with rows of length 1."""
    output = wide(output)
    if mask is not None and mask.shape == output.shape[: mask.dim()]:
        output = output * mask.reshape(*mask.shape, *[1] * (output.dim() - mask.dim()))
    flat = output.reshape(len(output), -1)
    return nn.functional.normalize(flat @ flat.T, dim=1)
