"""Freezer: makes a model and its optimizer obey a mask, and gives the user's own flags back."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import RequestError
from .blocks import BlockStack, find_blocks
from .mask import FreezeMask
from .optimizer_state import KeptMoments

logger = logging.getLogger(__name__)

_HOLDERS: WeakKeyDictionary[nn.Module, Freezer] = WeakKeyDictionary()


class Freezer:
    """Freezes units of one model, thaws them, and restores what the user had set.

    A frozen parameter gets no gradient, is not seen by the optimizer and keeps no optimizer state; one that the user
    froze before is never thawed. Dropout in frozen units keeps firing, unless `eval_frozen` puts them in eval mode.
    `keep_optimizer_state`: the optimizer state of frozen parameters is kept in host memory until they thaw.

    `optimizer` may be given later with `watch`. Raises `RequestError` when another Freezer holds the model.
    """

    def __init__(
        self,
        model: nn.Module,
        stack: BlockStack | None = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        eval_frozen: bool = False,
        keep_optimizer_state: bool = False,
    ) -> None:
        if model in _HOLDERS:
            raise RequestError(
                f"this {type(model).__name__} is already being frozen by another FreezeCallback or freeze(): "
                "use one, with one policy, or restore() the first."
            )
        self.stack = stack if stack is not None else find_blocks(model)
        self.model = model
        self.mask = FreezeMask(self.stack.depth)
        self._parameters = dict(model.named_parameters())
        self._user_flags = {name: p.requires_grad for name, p in self._parameters.items()}
        self._frozen: frozenset[str] = frozenset()
        self._optimizer: torch.optim.Optimizer | None = None
        self._full_groups: list[list[nn.Parameter]] = []
        self._factors: dict[int, float] = {}
        self._split: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None
        self._kept: KeptMoments | None = KeptMoments() if keep_optimizer_state else None
        self._handles: list[Any] = [_OrderCheck(model, self.stack)]
        self._optimizer_handles: list[Any] = []
        self._warned = False
        self._watch_input_embeddings()
        self._eval_frozen = eval_frozen
        if eval_frozen:
            self._handles.append(model.register_forward_pre_hook(self._put_frozen_in_eval))
        _HOLDERS[model] = self
        if optimizer is not None:
            self.watch(optimizer)

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep frozen parameters out of `optimizer`'s sight while it steps, and release their state.

        Some optimizers (torch's Muon) move a parameter even where it has no gradient.
        """
        inner: Any = optimizer
        while not isinstance(inner, torch.optim.Optimizer) or hasattr(inner, "optimizer"):
            inner = inner.optimizer  # accelerate's wrapper around the real one
        self._unwatch()
        self._optimizer = inner
        self._optimizer_handles = [
            inner.register_step_pre_hook(self._regroup),
            inner.register_step_post_hook(self._show_all),
        ]
        self._release_state(self._frozen)

    def apply(self, mask: FreezeMask) -> None:
        """Make `mask` hold from now on.

        Raises `RequestError`, with nothing changed, when no parameter would be left to train, and `ValueError` for
        a mask of another depth.
        """
        frozen = self.stack.frozen(mask)
        if not any(flag and name not in frozen for name, flag in self._user_flags.items()):
            raise RequestError(
                f"the mask '{mask}' leaves nothing to train: freeze fewer blocks, or leave the head or another unit "
                "trainable."
            )
        changed = False
        for name, parameter in self._parameters.items():
            wanted = self._user_flags[name] and name not in frozen
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
                changed = True
            if not wanted:
                # A gradient left over, even a zero one, would still move the weight through momentum and decay.
                parameter.grad = None
        self._release_state(frozen - self._frozen)
        if self._kept is not None and self._optimizer is not None:
            for name in self._frozen - frozen:
                self._kept.put_back(self._optimizer, name, self._parameters[name])
        self._let_modules_of(self.mask, train=True)
        self.mask, self._frozen = mask, frozen
        if changed and (dynamo := sys.modules.get("torch._dynamo")) is not None:
            dynamo.reset()  # a compiled frame may be reused after requires_grad changed (pytorch #139476)

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiply the learning rate of each unit named by its factor, in every step from now on; 1 for the others.

        Whatever a scheduler makes of the learning rate is multiplied, so that it goes well with any. Raises
        `RequestError` for an unknown unit, for a factor below 0, and for an optimizer that has no learning rate.
        """
        units = {unit.name: unit for unit in self.stack.units}
        for name, factor in factors.items():
            if name not in units:
                raise RequestError(
                    f"there is no unit {name!r} to set a learning rate for; there are {', '.join(units)}."
                )
            if not 0 <= factor < math.inf:
                raise RequestError(f"the factor on the learning rate of {name} must be 0 or more, not {factor!r}.")
        if self._optimizer is not None and any(group.get("lr") is None for group in self._optimizer.param_groups):
            raise RequestError(
                f"{type(self._optimizer).__name__} finds its own learning rate, so none can be set per unit: "
                "give it one, or take a policy that sets none."
            )
        self._factors = {
            id(self._parameters[p.name]): factor
            for name, factor in factors.items()
            if factor != 1
            for p in units[name].parameters
        }

    def restore(self) -> None:
        """Give back the flags and modes the user had set, and let go of model and optimizer."""
        for name, parameter in self._parameters.items():
            if parameter.requires_grad != self._user_flags[name]:
                parameter.requires_grad_(self._user_flags[name])
        self._let_modules_of(self.mask, train=True)
        self.release()

    def release(self) -> None:
        """Let go of model and optimizer, leaving the flags as they are."""
        self._unwatch()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if _HOLDERS.get(self.model) is self:
            del _HOLDERS[self.model]

    def __enter__(self) -> Freezer:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def frozen_modules(self, mask: FreezeMask) -> Iterator[nn.Module]:
        """The modules of the units that `mask` freezes whole, each at its top."""
        for unit in self.stack.units:
            if unit.name in mask.units:
                for path in unit.modules:
                    yield self.model.get_submodule(path)

    def kept_moments(self) -> dict[str, torch.Tensor]:
        """The optimizer state of frozen parameters, for a checkpoint; empty without `keep_optimizer_state`."""
        return self._kept.tensors() if self._kept is not None else {}

    def load_kept_moments(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `kept_moments` gave. Names of no concern are passed over."""
        if self._kept is not None:
            self._kept.load(tensors)

    def _release_state(self, names: frozenset[str]) -> None:
        if self._optimizer is not None:
            for name in names:
                state = self._optimizer.state.pop(self._parameters[name], None)
                if self._kept is not None and state:
                    self._kept.keep(name, state)

    def _regroup(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """For one step: frozen parameters out of sight, and a group for each learning rate."""
        self._show_all()  # if the last step ended in an exception
        hidden = {id(self._parameters[name]) for name in self._frozen}
        self._full_groups = [group["params"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in hidden]
        if self._factors:
            split = [self._by_factor(group) for group in optimizer.param_groups]
            self._split = (optimizer.param_groups, [parts[0] for parts in split])
            optimizer.param_groups = [part for parts in split for part in parts]

    def _by_factor(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        parameters: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parameters.setdefault(self._factors.get(id(parameter), 1.0), []).append(parameter)
        if not parameters:
            return [dict(group)]
        return [{**group, "params": own, "lr": group["lr"] * factor} for factor, own in parameters.items()]

    def _show_all(self, *_: Any) -> None:
        if self._optimizer is None or not self._full_groups:
            return
        if self._split is not None:
            groups, first_parts = self._split
            for group, part in zip(groups, first_parts, strict=True):
                # What an optimizer keeps in its groups (counters, distances) has to outlive the step.
                group.update({key: value for key, value in part.items() if key not in ("params", "lr")})
            self._optimizer.param_groups = groups
            self._split = None
        for group, parameters in zip(self._optimizer.param_groups, self._full_groups, strict=True):
            group["params"] = parameters
        self._full_groups = []

    def _unwatch(self) -> None:
        self._show_all()
        for handle in self._optimizer_handles:
            handle.remove()
        self._optimizer_handles, self._optimizer = [], None

    def _put_frozen_in_eval(self, model: nn.Module, *_: Any) -> None:
        # At each forward pass, since Trainer calls model.train() at each step.
        if model.training:
            for module in self.frozen_modules(self.mask):
                module.eval()

    def _let_modules_of(self, mask: FreezeMask, train: bool) -> None:
        if self._eval_frozen and self.model.training:
            for module in self.frozen_modules(mask):
                module.train(train)

    def _watch_input_embeddings(self) -> None:
        """Stop gradients at the input embeddings' output while their table is frozen.

        Activation checkpointing calls `enable_input_require_grads`, for its reentrant form, which needs an input that
        requires a gradient; backward would then walk the whole frozen prefix. The non-reentrant form, the default,
        needs none. What comes out of a frozen table and still requires a gradient was made to by that hook.
        """

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            if self.mask.prefix and isinstance(output, torch.Tensor) and output.is_leaf and output.requires_grad:
                if _checkpoints_reentrantly(self.model):
                    self._warn_of_reentrance()
                else:
                    output.requires_grad_(False)

        tables: dict[int, nn.Module] = {}
        for module in self.model.modules():
            if isinstance(module, PreTrainedModel):
                try:
                    table = module.get_input_embeddings()
                except NotImplementedError:  # a model without a table, of sound or pictures
                    continue
                if isinstance(table, nn.Module):
                    tables[id(table)] = table
        self._handles += [table.register_forward_hook(stop) for table in tables.values()]

    def _warn_of_reentrance(self) -> None:
        if not self._warned:
            logger.warning(
                "Reentrant activation checkpointing needs gradients at the embeddings' output, so backward still walks "
                "the frozen prefix: set gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
            self._warned = True


def _checkpoints_reentrantly(model: nn.Module) -> bool:
    functions = (getattr(m, "_gradient_checkpointing_func", None) for m in model.modules())
    return any(getattr(f, "keywords", {}).get("use_reentrant", False) for f in functions if f is not None)


class _OrderCheck:
    """Watches the first real forward pass, and raises before anything is trained on a wrong order of blocks."""

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        self._name = stack.model_name
        self._seen: list[int] = []
        self._handles: list[Any] = [model.register_forward_hook(self._finished)]
        for index, unit in enumerate(stack.blocks):
            for path in unit.modules:
                module = model.get_submodule(path)
                self._handles.append(module.register_forward_pre_hook(self._entered(index)))
        self._depth = stack.depth
        last = model.get_submodule(stack.blocks[-1].modules[-1])
        self._handles.append(last.register_forward_hook(self._last_ended))

    def _entered(self, index: int) -> Callable[..., None]:
        def note(*_: Any) -> None:
            if self._seen and index < self._seen[-1]:
                raise RequestError(
                    f"{self._name} ran block {index} after block {self._seen[-1]}: its blocks do not run one after the "
                    "other in the order found, so it cannot be frozen by depth."
                )
            self._seen.append(index)

        return note

    def _last_ended(self, *_: Any) -> None:
        if len(set(self._seen)) == self._depth:
            self.remove()

    def _finished(self, *_: Any) -> None:
        self.remove()  # layer drop may have left a block out

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
