"""Traces one small forward pass of a tower: which modules run before its first block, and when parameters are used."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .eval_mode import eval_mode

TOKENS = 8
IMAGE_SIZE = 64  # for a model that takes images of any size


@dataclass(frozen=True)
class Trace:
    """The result of tracing a forward pass.

    Attributes:
        order: Index of a block for each time that one of its modules was entered.
        early: Parameters (by `id`) that were first used before the last block finished.
        late: Parameters (by `id`) that were first used after the last block finished.
        before: Outermost modules that ran before the first block and not again after it, in order.
    """

    order: tuple[int, ...]
    early: frozenset[int]
    late: frozenset[int]
    before: tuple[nn.Module, ...]


class _ParameterUses(TorchFunctionMode):
    """Calls `on_use` with every parameter that is an argument of a function that returns a tensor.

    Reading an attribute such as `.dtype` is not a use, so functions that return something else are ignored.
    """

    def __init__(self, on_use: Callable[[nn.Parameter], None]) -> None:
        super().__init__()
        self._on_use = on_use

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, (torch.Tensor, tuple, list)):
            for value in (*args, *(kwargs or {}).values()):
                for item in value if isinstance(value, (tuple, list)) else (value,):
                    if isinstance(item, nn.Parameter):
                        self._on_use(item)
        return result


def trace_forward(tower: nn.Module, blocks: Sequence[Sequence[nn.Module]], inputs: Mapping[str, Any]) -> Trace:
    """Run `tower(**inputs)` in evaluation mode, without gradients, and trace it. The random state does not change.

    Args:
        tower: The transformers model around the blocks.
        blocks: The modules of each block.
        inputs: Keyword arguments of the forward pass.

    Raises:
        Exception: Whatever the forward pass raises.
    """
    order: list[int] = []
    finished_at_first_use: dict[int, int] = {}
    finished = 0  # modules of blocks that have finished so far
    entered: list[nn.Module] = []
    owner = {id(module): index for index, modules in enumerate(blocks) for module in modules}
    inside_blocks = {id(m) for modules in blocks for module in modules for m in module.modules()}
    around_blocks = {id(m) for m in tower.modules() if any(id(c) in owner for c in m.modules()) and id(m) not in owner}
    ignored = inside_blocks | around_blocks
    entered_later: list[nn.Module] = []
    open_modules: list[nn.Module] = []

    def enter(module: nn.Module, *_: Any) -> None:
        if id(module) not in ignored and not open_modules:
            (entered_later if order else entered).append(module)
            open_modules.append(module)

    def leave(module: nn.Module, *_: Any) -> None:
        if open_modules and open_modules[-1] is module:
            open_modules.pop()

    def run_block(module: nn.Module, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        nonlocal finished
        order.append(owner[id(module)])
        output = forward(*args, **kwargs)
        finished += 1
        return output

    def use(parameter: nn.Parameter) -> None:
        finished_at_first_use.setdefault(id(parameter), finished)

    device = next(tower.parameters()).device
    cuda = [device.index or 0] if device.type == "cuda" else []
    with ExitStack() as stack:
        for module in tower.modules():
            if id(module) in owner:  # wrapped, as hooks miss a call of `layer.forward(…)`
                stack.enter_context(_forward_replaced(module, functools.partial(run_block, module, module.forward)))
            else:
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
        stack.enter_context(eval_mode(tower.modules()))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(_ParameterUses(use))
        tower(**inputs)
    return Trace(
        order=tuple(order),
        early=frozenset(p for p, count in finished_at_first_use.items() if count < finished),
        late=frozenset(p for p, count in finished_at_first_use.items() if count >= finished),
        before=tuple(m for m in dict.fromkeys(entered) if m not in set(entered_later)),
    )


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace `module.forward` for a while."""
    own = vars(module).get("forward")
    module.forward = functools.update_wrapper(forward, module.forward)
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def sample_inputs(tower: nn.Module) -> list[dict[str, Any]]:
    """Small inputs for `tower`, built from its `main_input_name` and its config, the most complete one first.

    Raises:
        ValueError: If the kind of input is unknown.
    """
    config: Any = tower.config
    parameter = next(tower.parameters())
    floats: dict[str, Any] = {"dtype": parameter.dtype, "device": parameter.device}
    name = str(getattr(tower, "main_input_name", "input_ids"))
    accepted = inspect.signature(tower.forward).parameters
    inputs: dict[str, Any]
    if name == "input_ids":
        # Ids from 5 on, to avoid padding and end-of-sequence tokens.
        ids = torch.arange(5, 5 + TOKENS, device=parameter.device) % int(config.vocab_size)
        inputs = {"input_ids": ids[None]}
        if "bbox" in accepted:
            inputs["bbox"] = torch.zeros((1, TOKENS, 4), dtype=torch.long, device=parameter.device)
    elif name == "pixel_values":
        inputs = {name: torch.zeros(_image_shape(config), **floats)}
    elif name == "input_values":
        inputs = {name: torch.zeros((1, 4000), **floats)}
    elif name == "input_features":
        inputs = {name: torch.zeros((1, int(config.num_mel_bins), 2 * int(config.max_source_positions)), **floats)}
    else:
        raise ValueError(f"cannot build a sample input for a model that takes {name}")
    if "encoder_hidden_states" in accepted and getattr(config, "is_decoder", False):
        inputs["encoder_hidden_states"] = torch.zeros((1, TOKENS, int(config.hidden_size)), **floats)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    vision = getattr(config, "vision_config", None)
    if name == "input_ids" and "pixel_values" in accepted and vision is not None:
        return [{**inputs, "pixel_values": torch.zeros(_image_shape(vision), **floats)}, inputs]
    return [inputs]


def _image_shape(config: Any) -> tuple[int, int, int, int]:
    size = getattr(config, "image_size", None) or IMAGE_SIZE
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    channels = next((c for n in ("num_channels", "in_channels") if (c := getattr(config, n, None))), 3)
    return 1, int(channels), int(height), int(width)
