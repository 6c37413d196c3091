"""Adds a side network to a model, and removes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..cache.forms import Layout, Unsuitable, block_form, layout_of
from ..cache.keys import Batch
from ..cache.transfer import HOST_COPIES
from ..errors import RequestError
from ..model.blocks import BlockStack
from ..model.discovery import find_blocks
from ..model.eval_mode import eval_mode
from ..model.trace import TOKENS, sample_inputs
from .network import HEAD_WIDTH, SideConfig, SideNetwork, attention_mask

NAME = "side_network"  # of the module in the tower
_EXAMPLES = 2  # in the sample batch


def add_side_network(
    model: nn.Module,
    width: int = 192,
    *,
    layers: int = 2,
    every: int = 2,
    taps: Sequence[int] | None = None,
    dropout: float = 0.1,
    tower: str | None = None,
) -> SideNetwork:
    """Add a side network to a model, in place.

    The network reads the outputs of some blocks and adds its own output to that of the last block, so that every head
    works unchanged. Untrained, it adds zero. It belongs to the unit `head`. Train it with the policy `side`, which
    freezes all blocks, and with a `PrefixCache`: once the outputs are stored, the model itself runs no more.

    `FreezeCallback("side:width=192,every=2")` adds the network itself. Call this function for another training loop,
    before the optimizer is created.

    Args:
        model: A model whose blocks `find_blocks` knows.
        width: Width of the network, a multiple of 32.
        layers: Number of its layers.
        every: Read every so many blocks, counted down from the last.
        taps: Numbers of the blocks to read, instead of `every`. The last block is always read.
        dropout: Probability that a dimension of what is read is set to zero, in all tokens of an example.
        tower: The tower to use in a model with several, as in `find_blocks`.

    Returns:
        The network. It is the submodule `side_network` of the tower.

    Raises:
        RequestError: If an argument is out of range, if the model has another side network, or if its blocks do not
            return hidden states of one shape (batch, tokens, hidden).

    Example:
        ```python
        add_side_network(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)  # times 15 for the network
        with freeze(model, "side", optimizer=optimizer) as run:
            train(model, optimizer)
        ```
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < HEAD_WIDTH or width % HEAD_WIDTH:
        raise RequestError(f"the width of a side network must be a multiple of {HEAD_WIDTH}, not {width!r}.")
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise RequestError(f"the layers of a side network must be 1 or more, not {layers!r}.")
    if not 0 <= dropout < 1:
        raise RequestError(f"the dropout of a side network must lie in [0, 1), not {dropout!r}.")
    stack = find_blocks(model, tower)
    chosen = _chosen_taps(stack.depth, every, taps)
    present = find_side_network(model)
    if present is not None:
        config = present.config
        if (config.width, config.layers, config.taps, config.dropout) != (width, layers, chosen, dropout):
            raise RequestError(
                f"the model already has a side network of width {config.width} on the blocks "
                f"{', '.join(map(str, config.taps))}: call remove_side_network(model) first."
            )
        return present
    probe = _Probe(model, stack, chosen)
    network = SideNetwork(SideConfig(probe.hidden_size, width, layers, chosen, probe.causal, dropout))
    network.to(device=probe.device, dtype=probe.dtype).train(model.training)
    tower_module = model.get_submodule(stack.tower)
    tower_module.add_module(NAME, network)
    hooks = SideHooks(network, tower_module, probe.layout)
    network.handles = hooks.register([model.get_submodule(path) for path in _outputs(stack, chosen)])
    return network


def find_side_network(model: nn.Module) -> SideNetwork | None:
    """Return the side network of a model, or None if it has none."""
    return next((m for m in model.modules() if isinstance(m, SideNetwork)), None)


def remove_side_network(model: nn.Module) -> None:
    """Remove the side network of a model, if it has one."""
    for module in model.modules():
        network = getattr(module, NAME, None)
        if isinstance(network, SideNetwork):
            for handle in network.handles:
                handle.remove()
            delattr(module, NAME)
            return


def check_side_network(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Raise `RequestError` if a model has no side network, or if an optimizer does not train it."""
    network = find_side_network(model)
    if network is None:
        raise RequestError(
            "the policy trains a side network, which the model does not have: pass the FreezeCallback to "
            "Trainer(callbacks=[...]), or call add_side_network(model) before the optimizer is created."
        )
    held = set() if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held and any(id(p) not in held for p in network.parameters()):
        raise RequestError(
            "the optimizer does not train the side network: call add_side_network(model) before it is created."
        )


def tap_boundaries(model: nn.Module) -> tuple[int, ...]:
    """Return the boundaries whose hidden states the side network of a model reads, as `CacheSession` takes them."""
    network = find_side_network(model)
    return () if network is None else tuple(tap + 2 for tap in network.config.taps)


class SideHooks:
    """Connects a side network to a tower: reads the outputs of blocks, and adds to the output of the last.

    Args:
        network: The network.
        tower: The tower.
        layout: Order of the dimensions of the blocks' outputs.
    """

    def __init__(self, network: SideNetwork, tower: nn.Module, layout: Layout) -> None:
        self._network = network
        self._tower = tower
        self._layout = Layout(layout.order)
        self._arguments = tuple(inspect.signature(tower.forward).parameters)
        self._inputs: Mapping[str, Any] = {}
        self._taps: dict[int, torch.Tensor] = {}

    def register(self, blocks: Sequence[nn.Module]) -> list[RemovableHandle]:
        """Register the hooks on the tower and on the blocks that are read, in their order."""
        handles = [self._tower.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for index, block in zip(self._network.config.taps, blocks, strict=True):
            handles.append(block.register_forward_hook(functools.partial(self._read, index), with_kwargs=True))
        return handles

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_inputs": {}, "_taps": {}}  # a copy of the model has no forward pass in progress

    def _begin(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # What the last forward pass left is kept until now: activation checkpointing runs the last block again.
        self._inputs = dict(zip(self._arguments, args, strict=False)) | kwargs
        self._taps = {}
        earlier = self._inputs.get("past_key_values")
        if earlier is not None and earlier.get_seq_length():
            raise RequestError("a side network reads all tokens at once: pass use_cache=False to generate().")

    def _read(
        self, index: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any | None:
        form = block_form(index, output, args, kwargs)
        hidden = form.hidden(output)
        order = self._layout.order
        self._taps[index] = hidden if order is None else hidden.permute(order)
        config = self._network.config
        if index != config.taps[-1]:
            return None
        missing = [tap for tap in config.taps if tap not in self._taps]
        if missing:
            raise RequestError(f"block {missing[0]}, which the side network reads, did not run: turn layerdrop off.")
        taps = [self._taps[tap] for tap in config.taps]
        added = self._network(taps, self._mask(taps[-1].shape[1])).to(hidden.dtype)
        return form.output(self._layout.to_model(taps[-1] + added, like=hidden), args, kwargs, output)

    def _mask(self, tokens: int) -> torch.Tensor | None:
        padding, positions = self._inputs.get("attention_mask"), self._inputs.get("position_ids")
        if padding is not None:
            if not isinstance(padding, torch.Tensor) or padding.dim() != 2:
                raise RequestError("a side network takes an attention_mask of shape (batch, tokens) only.")
            known = HOST_COPIES.read(padding) if padding.shape[1] > tokens else HOST_COPIES.find(padding)
            if known is not None and bool(known.all()):
                padding = None
            if padding is not None and padding.shape[1] > tokens:
                raise RequestError(
                    f"the model shortens its inputs from {padding.shape[1]} to {tokens} positions, so a side network "
                    "does not know which of them are padding: use batches without padding."
                )
        if not isinstance(positions, torch.Tensor) or positions.dim() != 2:
            positions = None
        return attention_mask(tokens, padding, positions, causal=self._network.config.causal)


class _Probe:
    """What a sample forward pass shows about the outputs of blocks.

    Args:
        model: The model.
        stack: Its units.
        taps: Numbers of the blocks.

    Attributes:
        hidden_size: Width of the hidden state.
        layout: Order of its dimensions.
        causal: Whether the first token is the same whatever the last one is.
        dtype: Its data type.
        device: Its device.

    Raises:
        RequestError: If a side network cannot read them.
    """

    def __init__(self, model: nn.Module, stack: BlockStack, taps: Sequence[int]) -> None:
        self._tower = model.get_submodule(stack.tower)
        self._blocks = dict(zip(taps, (model.get_submodule(p) for p in _outputs(stack, taps)), strict=True))
        name = stack.model_name
        reason = "its tower accepts no sample input"
        for inputs in self._samples():
            try:
                found = self._run(inputs)
            except RequestError:
                raise
            except Unsuitable as error:
                raise RequestError(f"{name} cannot have a side network: {error}.") from error
            except Exception as error:  # model code may raise anything on a sample
                reason = f"its tower accepts no sample input ({type(error).__name__}: {error})"
                continue
            break
        else:
            raise RequestError(f"{name} cannot have a side network: {reason}.")
        shapes = {tuple(hidden.shape) for hidden in found.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 3:
            listed = ", ".join(str(shape) for shape in sorted(shapes))
            raise RequestError(
                f"{name} cannot have a side network: its blocks return shapes {listed}, not one shape "
                "(batch, tokens, hidden)."
            )
        last = found[taps[-1]]
        self.hidden_size, self.dtype, self.device = int(last.shape[-1]), last.dtype, last.device
        self.causal = "input_ids" in inputs and self._is_causal(inputs, last)

    def _samples(self) -> list[dict[str, Any]]:
        try:
            samples = sample_inputs(self._tower)
        except Exception:  # a config may lack what a sample needs; the caller then reports that there is no sample
            return []
        return [
            {n: v.repeat(_EXAMPLES, *[1] * (v.dim() - 1)) if isinstance(v, torch.Tensor) else v for n, v in s.items()}
            for s in samples
        ]

    def _run(self, inputs: Mapping[str, Any]) -> dict[int, torch.Tensor]:
        """The outputs of the blocks, of shape (batch, tokens, hidden)."""
        tokens = TOKENS if "input_ids" in inputs else None
        batch = Batch({}, {}, (b"",) * _EXAMPLES, None, tokens)
        found: dict[int, torch.Tensor] = {}

        def read(index: int, block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if index in found:
                raise Unsuitable(f"block {index} runs several times in one forward pass")
            hidden = block_form(index, output, args, kwargs).hidden(output)
            self.layout = layout_of(index, hidden, batch)
            found[index] = hidden if self.layout.order is None else hidden.permute(self.layout.order)

        handles = [
            block.register_forward_hook(functools.partial(read, index), with_kwargs=True)
            for index, block in self._blocks.items()
        ]
        parameter = next(self._tower.parameters())
        cuda = [parameter.device.index or 0] if parameter.is_cuda else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=cuda), eval_mode(self._tower.modules()):
                self._tower(**inputs)
        finally:
            for handle in handles:
                handle.remove()
        missing = [index for index in self._blocks if index not in found]
        if missing:
            raise Unsuitable(f"block {missing[0]} does not run, or is not called as a module")
        return found

    def _is_causal(self, inputs: Mapping[str, Any], last: torch.Tensor) -> bool:
        ids = inputs["input_ids"].clone()
        ids[:, -1] = ids[:, 0]
        other = self._run({**inputs, "input_ids": ids})[max(self._blocks)]
        first, changed = last[:, 0], other[:, 0]
        scale = float(first.abs().max())
        return torch.allclose(first, changed, rtol=0, atol=1e-6 * scale)


def _outputs(stack: BlockStack, taps: Sequence[int]) -> list[str]:
    """Paths of the modules that return the outputs of blocks."""
    return [stack.blocks[tap].modules[-1] for tap in taps]


def _chosen_taps(depth: int, every: int, taps: Sequence[int] | None) -> tuple[int, ...]:
    if taps is None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise RequestError(f"a side network reads every n-th block; n must be 1 or more, not {every!r}.")
        return tuple(sorted(range(depth - 1, -1, -every)))
    wrong = [tap for tap in taps if isinstance(tap, bool) or not isinstance(tap, int) or not 0 <= tap < depth]
    if wrong:
        raise RequestError(f"taps must be numbers of blocks from 0 to {depth - 1}, not {wrong[0]!r}.")
    return tuple(sorted({*taps, depth - 1}))
