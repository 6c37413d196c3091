"""find_blocks: finds the units of a model from its structure."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import RequestError
from .blocks import BlockStack, ParameterInfo, Unit, Use
from .mask import EMBEDDINGS, HEAD, block_name
from .trace import Trace, sample_inputs, trace_forward

logger = logging.getLogger(__name__)

Block = tuple[nn.Module, ...]


def find_blocks(model: nn.Module, tower: str | None = None) -> BlockStack:
    """Find the units of a model from its structure: the lists of similar modules inside a transformers model.

    Modules that run before or between the blocks, and parameters that the blocks use from outside (position tables,
    shared biases), belong to `embeddings`. Modules that run after the blocks, and everything outside the tower, belong
    to `head`. A sample forward pass of 8 tokens decides. If the model does not accept a sample, the order in which
    modules are registered decides.

    Example:
        ```python
        stack = find_blocks(model)
        stack.depth  # 12
        stack.frozen(FreezeMask.first(stack.depth, 6))  # names of the parameters in the embeddings and 6 blocks
        ```

    Args:
        model: A transformers model, or a module that contains one.
        tower: Path, or end of the path, of the tower to use in a model with several: `"text_model"`.

    Returns:
        The units in forward order.

    Raises:
        RequestError: If there is no transformers model, no list of blocks, a `tower` that matches none or several, or
            several towers and none is named.
    """
    name = type(model).__name__
    pretrained = [(path, m) for path, m in model.named_modules() if isinstance(m, PreTrainedModel)]
    if not pretrained:
        raise RequestError(
            f"{name} is not a transformers model: pass a PreTrainedModel, or a module that contains one."
        )
    path, module, groups = _choose_tower(name, _towers(pretrained), tower)
    ranked = sorted(groups, key=_parameter_count, reverse=True)
    for blocks in ranked[:-1]:
        try:
            return _locate(model, pretrained, path, module, blocks)
        except _NeverRunError:  # the blocks of another modality
            continue
    return _locate(model, pretrained, path, module, ranked[-1])


class SeveralTowersError(RequestError):
    """A model has several towers, and none is named."""


class _NeverRunError(RequestError):
    """The blocks do not run in a sample forward pass."""


def _locate(
    model: nn.Module,
    pretrained: Sequence[tuple[str, PreTrainedModel]],
    path: str,
    module: nn.Module,
    blocks: list[Block],
) -> BlockStack:
    """The units around `blocks`, which are in the tower `module` at `path`."""
    name = type(model).__name__
    # A bare encoder (as in DINOv2) may accept no sample, and have no embeddings. Those are in the base model around it.
    around = [
        (p, m)
        for p, m in reversed(pretrained)
        if p != path and path.startswith(f"{p}." if p else "") and m.base_model is m
    ]
    traced: list[tuple[str, nn.Module, list[Block], Trace]] = []
    for outer_path, outer in [(path, module), *around]:
        try:
            found, trace = _probe(outer, blocks)
        except _NeverRunError:
            if outer is module:
                raise
            continue  # the sample of the model around has another modality
        if trace is not None:
            traced.append((outer_path, outer, found, trace))
            if _early_parameters(outer, _block_of(found), trace):
                return _assemble(model, name, outer_path, outer, found, trace)
    if traced:  # the first block takes the inputs
        return _assemble(model, name, *traced[0])
    if around and not _early_parameters(module, _block_of(blocks), None):
        path, module = around[0]
    return _assemble(model, name, path, module, blocks, None)


def _towers(
    pretrained: Sequence[tuple[str, PreTrainedModel]],
) -> dict[str, tuple[nn.Module, list[list[Block]]]]:
    """Map from the path of each tower to the tower and its lists of blocks.

    A tower is the innermost transformers model around a list of blocks.
    """
    towers: dict[str, tuple[nn.Module, list[list[Block]]]] = {}
    inner = {id(m) for _, m in pretrained}
    for path, module in pretrained:
        by_class: dict[frozenset[type], list[Block]] = {}
        for blocks in _block_lists(module, inner - {id(module)}):
            by_class.setdefault(frozenset(type(m) for b in blocks for m in b), []).extend(blocks)
        if by_class:
            towers[path] = (module, list(by_class.values()))
    return towers


def _block_lists(module: nn.Module, stop: set[int]) -> list[list[Block]]:
    """The outermost lists of similar modules in `module`, outside of other transformers models."""
    found: list[list[Block]] = []
    parallel: dict[int, list[list[nn.Module]]] = {}
    for child in module.children():
        if id(child) in stop:
            continue
        members = _flat(child) if isinstance(child, nn.ModuleList) else []
        if members and any(next(m.parameters(), None) is not None for m in members):
            parallel.setdefault(len(members), []).append(members)
        else:
            found.extend(_block_lists(child, stop))
    # Sibling lists of equal length hold the sub-layers of the same blocks (XLM: attentions, norms, ffns, norms).
    found.extend([list(zip(*lists, strict=True)) for lists in parallel.values()])
    return found


def _flat(modules: nn.ModuleList) -> list[nn.Module]:
    """The members of a list, and of the lists in it (the stages of Funnel)."""
    return [m for child in modules for m in (_flat(child) if isinstance(child, nn.ModuleList) else [child])]


def _choose_tower(
    name: str, towers: dict[str, tuple[nn.Module, list[list[Block]]]], wanted: str | None
) -> tuple[str, nn.Module, list[list[Block]]]:
    if not towers:
        raise RequestError(f"{name} has no list of blocks that can be frozen one by one.")
    choices = ", ".join(sorted(path or "(the whole model)" for path in towers))
    if wanted is not None:
        matches = [path for path in towers if path == wanted or path.endswith("." + wanted)]
        if len(matches) != 1:
            raise RequestError(f"{name} has no single tower named {wanted!r}: set tower to one of {choices}.")
        return matches[0], *towers[matches[0]]
    if len(towers) > 1:
        raise SeveralTowersError(f"{name} has several towers: set tower to one of {choices}.")
    path = next(iter(towers))
    return path, *towers[path]


def _probe(tower: nn.Module, blocks: list[Block]) -> tuple[list[Block], Trace | None]:
    """Trace a sample forward pass. Returns the blocks, and the trace or None if the tower accepts no sample.

    Lists of equal length are taken as the sub-layers of the same blocks. If these do not run in order, the list with
    the most parameters is traced alone.
    """
    largest = max(zip(*blocks, strict=True), key=lambda modules: _parameter_count([modules]))
    order: tuple[int, ...] = ()
    alone: list[Block] = [(module,) for module in largest]
    for found in (blocks, alone):
        trace = _sampled_trace(tower, found)
        if trace is None:
            return blocks, None
        order = trace.order
        if list(order) == sorted(order):
            if not order:
                raise _NeverRunError(
                    f"{type(tower).__name__} runs none of its {len(blocks)} blocks in a sample forward pass: it "
                    "cannot be frozen by depth."
                )
            return found, trace
    earlier, later = next(pair for pair in pairwise(order) if pair[0] > pair[1])
    raise RequestError(
        f"{type(tower).__name__} runs block {later} after block {earlier}: its blocks do not run one after the other, "
        "so it cannot be frozen by depth."
    )


def _sampled_trace(tower: nn.Module, blocks: Sequence[Block]) -> Trace | None:
    """The trace of the first sample that the tower accepts, or None."""
    try:
        samples = sample_inputs(tower)
    except Exception as error:  # a config may lack what a sample needs
        logger.info("No sample input for %s (%s): units follow registration order", type(tower).__name__, error)
        return None
    for inputs in samples:
        try:
            return trace_forward(tower, blocks, inputs)
        except Exception as error:  # model code may raise anything; the first real batch is checked too
            logger.info("No sample forward pass of %s with %s (%s)", type(tower).__name__, sorted(inputs), error)
    return None


def _parameter_count(blocks: Sequence[Block]) -> int:
    return sum(p.numel() for block in blocks for module in block for p in module.parameters())


def _block_of(blocks: Sequence[Block]) -> dict[int, int]:
    """Map from the `id` of a parameter to the first block that contains it."""
    found: dict[int, int] = {}
    for index, block in enumerate(blocks):
        for parameter in (p for m in block for p in m.parameters()):
            found.setdefault(id(parameter), index)
    return found


def _assemble(
    model: nn.Module, name: str, path: str, tower: nn.Module, blocks: Sequence[Block], trace: Trace | None
) -> BlockStack:
    paths = {id(m): p for p, m in model.named_modules()}
    block_of = _block_of(blocks)
    in_tower = {id(p) for p in tower.parameters()}
    fed_early = _early_parameters(tower, block_of, trace)
    lookup = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    multiplied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    shares = _expert_share(tower)

    owned: dict[str, list[ParameterInfo]] = {}
    for parameter_name, parameter in model.named_parameters():
        key = id(parameter)
        if key in block_of:
            unit = block_name(block_of[key])
        else:
            unit = EMBEDDINGS if key in in_tower and key in fed_early else HEAD
        use: Use = "other"
        if key in lookup:
            use = "tied" if key in multiplied else "lookup"
        elif parameter.dim() in (2, 4) and (parameter.dim() == 2 or unit != HEAD):
            use = "matmul"
        elif parameter.dim() == 3 and key in block_of:
            use = "expert" if shares < 1 else "matmul"
        info = ParameterInfo(
            parameter_name,
            tuple(parameter.shape),
            use,
            parameter.requires_grad,
            shares if use == "expert" or ".experts." in parameter_name else 1.0,
        )
        owned.setdefault(unit, []).append(info)

    first = tuple(paths[id(m)] for m in trace.before) if trace else _registered_before(tower, blocks, paths)
    unit_modules = [first, *(tuple(paths[id(m)] for m in block) for block in blocks), ()]
    if trace is None and EMBEDDINGS not in owned:
        raise RequestError(
            f"no parameter of {name} is registered before its first block, and it accepts no sample that would show "
            "its embeddings: it cannot be frozen by depth."
        )
    names = [EMBEDDINGS, *(block_name(i) for i in range(len(blocks))), HEAD]
    units = tuple(Unit(n, m, tuple(owned.get(n, ()))) for n, m in zip(names, unit_modules, strict=True))
    return BlockStack(
        model_name=name,
        tower=path,
        units=units,
        hidden_size=_hidden_size(tower, blocks[-1]),
        shared=tuple(_shared(model, {p.name: u.name for u in units for p in u.parameters}, blocks, trace)),
        probed=trace is not None,
    )


def _early_parameters(tower: nn.Module, block_of: dict[int, int], trace: Trace | None) -> set[int]:
    """Parameters of the tower outside the blocks that are used before the last block finishes."""
    order = [id(p) for p in tower.parameters()]
    last_block = max(i for i, key in enumerate(order) if key in block_of)
    early = {key for i, key in enumerate(order) if i < last_block and key not in block_of}
    if trace is None:
        return early
    return (early - trace.late) | set(trace.early)


def _registered_before(tower: nn.Module, blocks: Sequence[Block], paths: dict[int, str]) -> tuple[str, ...]:
    """Outermost modules registered before the first block, for a model that accepts no sample."""
    inside = {id(m) for block in blocks for b in block for m in b.modules()}
    found: list[str] = []

    def walk(module: nn.Module) -> bool:
        for child in module.children():
            if id(child) in inside:
                return True
            if any(id(m) in inside for m in child.modules()):
                return walk(child)
            found.append(paths[id(child)])
        return False

    walk(tower)
    return tuple(found)


def _shared(model: nn.Module, unit_of: dict[str, str], blocks: Sequence[Block], trace: Trace | None) -> Iterable[str]:
    """Sentences about parameters with several names, and about blocks that run several times."""
    names: dict[int, list[str]] = {}
    for parameter_name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(parameter_name)
    for aliases in names.values():
        if len(aliases) > 1:
            yield f"{' = '.join(aliases)}: one parameter, in {unit_of[aliases[0]]}"
    for index, block in enumerate(blocks):
        runs = trace.order.count(index) / len(block) if trace else 1
        if not runs:
            yield f"{block_name(index)} does not run in a sample forward pass"
        if runs > 1:
            yield f"{block_name(index)} runs {runs:.0f} times in one forward pass with the same parameters"


def _config_value(tower: nn.Module, *names: str) -> Any:
    config: Any = tower.config
    return next((value for n in names if (value := getattr(config, n, None)) is not None), None)


def _hidden_size(tower: nn.Module, last: Block) -> int:
    """Width of the hidden state: from the config, else the most frequent size of a bias or norm in the last block."""
    size = _config_value(tower, "hidden_size", "d_model", "n_embd", "dim", "hidden_sizes", "embed_dim")
    if isinstance(size, (list, tuple)):
        size = max(size)
    if size is None:
        size = statistics.mode([p.numel() for m in last for p in m.parameters() if p.dim() == 1] or [0])
    return int(size)


def _expert_share(tower: nn.Module) -> float:
    """Share of the experts that process one token in a mixture of experts."""
    experts = _config_value(tower, "num_local_experts", "num_experts", "n_routed_experts")
    active = _config_value(tower, "num_experts_per_tok")
    return float(active) / float(experts) if experts and active else 1.0
