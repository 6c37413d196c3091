"""The inputs of a tower's forward pass, as a batch of examples that the cache can look up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from .forms import Unsuitable
from .keys import NESTED, PACKING, Batch, read_batch
from .precision import autocast_dtype
from .transfer import HOST_COPIES

# Arguments of a model that only its loss uses.
LOSS_ARGUMENTS = ("labels", "num_items_in_batch")
STATES = "output_hidden_states"  # True for those of all blocks, or the indices of some

try:
    from transformers.backbone_utils import filter_output_hidden_states
except ImportError:  # earlier versions request the hidden states only where they are wanted
    _FILTER: Any = None
else:
    _FILTER = filter_output_hidden_states(lambda self: None).__code__  # type: ignore[no-untyped-call]


class InputReader:
    """Reads the arguments of a tower's forward pass.

    Args:
        model: The model whose forward pass calls the tower.
        tower: The tower, before its forward pass is wrapped.
        stack: The units of the model.

    Attributes:
        with_padding: Whether padding is part of an example. Its row is then found only in a batch of the same width.
    """

    def __init__(self, model: nn.Module, tower: nn.Module, stack: BlockStack) -> None:
        self.with_padding = False
        self._config = getattr(tower, "config", None)
        self._main_input = str(getattr(tower, "main_input_name", ""))
        self._parameters = inspect.signature(tower.forward).parameters
        self._states_dropped = _drops_hidden_states(model)
        self._depth = stack.depth
        self._has_experts = any(p.use == "expert" for unit in stack.units for p in unit.parameters)

    def read(self, args: Sequence[Any], kwargs: Mapping[str, Any], variant: object = None) -> Batch:
        """Return the batch in the arguments of a forward pass.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            variant: Identifies the row to use if several are stored for each example.

        Raises:
            Unsuitable: If this call cannot skip the prefix.
        """
        given = dict(zip(self._parameters, args, strict=False)) | dict(kwargs)
        given = {name: value for name, value in given.items() if value is not None}
        if self._states_dropped and STATES in given:
            given[STATES] = False
        loss = {name: given.pop(name) for name in LOSS_ARGUMENTS if name in given}
        packing = {name: given.pop(name) for name in PACKING if name in given}
        if packing and "position_ids" not in given:
            raise Unsuitable("its examples are packed without position_ids, which say where each begins")
        given = _flat(given)
        tensors = {n: v for n, v in given.items() if isinstance(v, torch.Tensor) and v.dim()}
        rest = {n: v for n, v in given.items() if n not in tensors}
        rest = {n: HOST_COPIES.read(v).item() if isinstance(v, torch.Tensor) else v for n, v in rest.items()}
        tensors = _expanded(tensors, self._main_input)
        if any(name == "position_ids" and t.dim() == 3 for name, t in tensors.items()):
            raise Unsuitable("its position_ids have three dimensions, so they are not one row for each example")
        for flag in ("use_cache", "use_mems"):
            if flag in self._parameters:
                rest.setdefault(flag, False)
        states = given.get(STATES, getattr(self._config, STATES, False))
        if states is True or given.get("output_attentions", getattr(self._config, "output_attentions", False)):
            raise Unsuitable("the hidden states or attentions of all blocks are requested")
        if any(t.requires_grad for t in tensors.values()):
            raise Unsuitable("its inputs require gradients")
        for name, value in rest.items():
            if not isinstance(value, (bool, int, float, str)) and name != STATES:
                raise Unsuitable(f"its input {name} is a {type(value).__name__}, which has no cache key")
        try:
            salt = _salt(tensors, rest, variant)
            batch = read_batch(tensors, rest, salt, with_padding=self.with_padding, packing=packing)
        except ValueError as error:
            raise Unsuitable(str(error)) from error
        if self._has_experts and batch.padded:
            raise Unsuitable("its experts share their work between real tokens and padding")
        return replace(batch, loss=loss, deepest=_lowest_state(states, self._depth))


def _lowest_state(requested: Any, depth: int) -> int | None:
    """The boundary of the lowest of the requested hidden states: state 0 is the output of the embeddings."""
    if requested is False:
        return None
    indices = [requested] if isinstance(requested, int) else requested
    return 1 + min(index % (depth + 1) for index in indices)


def _drops_hidden_states(model: nn.Module) -> bool:
    """Whether `model` requests the hidden states of all blocks from its tower, and neither reads nor returns them.

    transformers does so in its speech classifiers: `filter_output_hidden_states` requests them in every call.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "output_hidden_states", False) or getattr(config, "use_weighted_layer_sum", True):
        return False
    function: Any = type(model).forward
    while function is not None:
        if getattr(function, "__code__", None) is _FILTER:
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the tensors of mappings, such as a mask for each kind of attention, as arguments of their own."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict) and value and all(isinstance(v, torch.Tensor) and v.dim() for v in value.values()):
            found |= {f"{name}{NESTED}{inner}": tensor for inner, tensor in value.items()}
        else:
            found[name] = value
    return found


def _expanded(tensors: Mapping[str, torch.Tensor], main: str) -> dict[str, torch.Tensor]:
    """`tensors` with a copy for each example where all examples share one, as positions of shape (1, tokens)."""
    size = tensors[main].shape[0] if main in tensors else max((t.shape[0] for t in tensors.values()), default=0)
    return {
        n: t.expand(size, *t.shape[1:]) if t.shape[0] == 1 < size and t.dim() > 1 else t for n, t in tensors.items()
    }


def _salt(tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any], variant: object) -> bytes:
    precision = autocast_dtype(next(iter(tensors.values())).device)
    return repr((sorted(rest.items()), precision, variant)).encode()
