"""Traces one small forward pass of a tower: which modules run before its first block, and when parameters are used."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .eval_mode import eval_mode

TOKENS = 8


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
        if id(module) in owner:
            order.append(owner[id(module)])
        elif id(module) not in ignored and not open_modules:
            (entered_later if order else entered).append(module)
            open_modules.append(module)

    def leave(module: nn.Module, *_: Any) -> None:
        nonlocal finished
        if id(module) in owner:
            finished += 1
        elif open_modules and open_modules[-1] is module:
            open_modules.pop()

    def use(parameter: nn.Parameter) -> None:
        finished_at_first_use.setdefault(id(parameter), finished)

    device = next(tower.parameters()).device
    cuda = [device.index or 0] if device.type == "cuda" else []
    with ExitStack() as stack:
        for module in tower.modules():
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


def sample_inputs(tower: nn.Module) -> dict[str, Any]:
    """Return a small input for `tower`, built from its `main_input_name` and its config.

    Raises:
        ValueError: If the kind of input is unknown.
    """
    config: Any = tower.config
    parameter = next(tower.parameters())
    name = str(getattr(tower, "main_input_name", "input_ids"))
    inputs: dict[str, Any]
    if name == "input_ids":
        # Ids from 5 on, to avoid padding and end-of-sequence tokens.
        ids = torch.arange(5, 5 + TOKENS, device=parameter.device) % int(config.vocab_size)
        inputs = {"input_ids": ids[None]}
    elif name == "pixel_values":
        size = config.image_size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        shape = (1, int(getattr(config, "num_channels", 3)), int(height), int(width))
        inputs = {name: torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)}
    elif name == "input_values":
        inputs = {name: torch.zeros((1, 4000), dtype=parameter.dtype, device=parameter.device)}
    elif name == "input_features":
        frames = (1, int(config.num_mel_bins), 2 * int(config.max_source_positions))
        inputs = {name: torch.zeros(frames, dtype=parameter.dtype, device=parameter.device)}
    else:
        raise ValueError(f"cannot build a sample input for a model that takes {name}")
    accepted = inspect.signature(tower.forward).parameters
    if "encoder_hidden_states" in accepted and getattr(config, "is_decoder", False):
        hidden = torch.zeros((1, TOKENS, int(config.hidden_size)), dtype=parameter.dtype, device=parameter.device)
        inputs["encoder_hidden_states"] = hidden
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs
