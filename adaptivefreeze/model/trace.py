"""One tiny forward pass of a tower, watched: what runs before its first block, and which parameters are used when."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

TOKENS = 8


@dataclass(frozen=True)
class Trace:
    """What a forward pass showed.

    `order`: indices of the blocks, one entry each time one of its modules was entered.
    `early`: parameters (by `id`) whose first use came before the last block had ended.
    `late`: parameters first used after that.
    `before`: outermost modules that ran before the first block, in order, and not again after it.
    """

    order: tuple[int, ...]
    early: frozenset[int]
    late: frozenset[int]
    before: tuple[nn.Module, ...]


class _ParameterUses(TorchFunctionMode):
    """Calls `seen` with every parameter that goes into a function which returns a tensor.

    Reading `.dtype` or `.device` of a parameter is no use of it, hence the look at what comes back.
    """

    def __init__(self, seen: Callable[[nn.Parameter], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, (torch.Tensor, tuple, list)):
            for value in (*args, *(kwargs or {}).values()):
                for item in value if isinstance(value, (tuple, list)) else (value,):
                    if isinstance(item, nn.Parameter):
                        self._seen(item)
        return result


def trace_forward(tower: nn.Module, blocks: Sequence[Sequence[nn.Module]], inputs: Mapping[str, Any]) -> Trace:
    """Run `tower(**inputs)` without gradients, in eval mode, the random state untouched, and tell what it did.

    `blocks`: the modules of each block. Raises whatever the forward pass raises.
    """
    order: list[int] = []
    first_use: dict[int, int] = {}
    ended = 0  # block exits so far
    entered: list[nn.Module] = []
    owner = {id(module): index for index, modules in enumerate(blocks) for module in modules}
    inside_blocks = {id(m) for modules in blocks for module in modules for m in module.modules()}
    around_blocks = {id(m) for m in tower.modules() if any(id(c) in owner for c in m.modules()) and id(m) not in owner}
    elsewhere = inside_blocks | around_blocks
    again: list[nn.Module] = []
    open_modules: list[nn.Module] = []

    def enter(module: nn.Module, *_: Any) -> None:
        if id(module) in owner:
            order.append(owner[id(module)])
        elif id(module) not in elsewhere and not open_modules:
            (again if order else entered).append(module)
            open_modules.append(module)

    def leave(module: nn.Module, *_: Any) -> None:
        nonlocal ended
        if id(module) in owner:
            ended += 1
        elif open_modules and open_modules[-1] is module:
            open_modules.pop()

    def used(parameter: nn.Parameter) -> None:
        first_use.setdefault(id(parameter), ended)

    device = next(tower.parameters()).device
    cuda = [device.index or 0] if device.type == "cuda" else []
    with ExitStack() as stack:
        for module in tower.modules():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        stack.enter_context(_same_modes(tower))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(_ParameterUses(used))
        tower(**inputs)
    return Trace(
        order=tuple(order),
        early=frozenset(p for p, exits in first_use.items() if exits < ended),
        late=frozenset(p for p, exits in first_use.items() if exits >= ended),
        before=tuple(m for m in dict.fromkeys(entered) if m not in set(again)),
    )


def sample_inputs(tower: nn.Module) -> dict[str, Any]:
    """A smallest input for `tower`, from its `main_input_name` and config. Raises `ValueError` for an unknown kind."""
    config: Any = tower.config
    parameter = next(tower.parameters())
    name = str(getattr(tower, "main_input_name", "input_ids"))
    inputs: dict[str, Any]
    if name == "input_ids":
        # From 5 up, so that no padding or end-of-sequence id turns the sample into something special.
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
        raise ValueError(f"no sample input is known for a model that takes {name}")
    accepted = inspect.signature(tower.forward).parameters
    if "encoder_hidden_states" in accepted and getattr(config, "is_decoder", False):
        hidden = torch.zeros((1, TOKENS, int(config.hidden_size)), dtype=parameter.dtype, device=parameter.device)
        inputs["encoder_hidden_states"] = hidden
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


@contextmanager
def _same_modes(module: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode again outside. Layer drop and dropout would hide what runs."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
