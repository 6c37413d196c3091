"""Freezer: makes a model and its optimizer follow a mask."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..errors import RequestError
from .blocks import BlockStack
from .discovery import find_blocks
from .input_gradients import InputGradientStop
from .mask import FreezeMask
from .optimizer_groups import OptimizerGroups
from .optimizer_state import KeptOptimizerState
from .order_check import OrderCheck
from .partial import PartialFreeze
from .sharding import reshard

_FREEZERS: WeakKeyDictionary[nn.Module, Freezer] = WeakKeyDictionary()


class Freezer:
    """Freezes and thaws the units of one model, and restores the flags that the user had set.

    A frozen parameter gets no gradient, is left out of the optimizer's steps and keeps no optimizer state. A parameter
    that is frozen in part keeps the values of its frozen elements in each step of the optimizer. A parameter that the
    user froze before is never thawed.

    Example:
        ```python
        with Freezer(model, optimizer=optimizer) as freezer:
            freezer.apply(FreezeMask.first(12, 6))  # embeddings and the first 6 of 12 blocks
            train(model, optimizer)
        ```

    Args:
        model: The model to freeze.
        stack: Its units. Found with `find_blocks(model)` by default.
        optimizer: The optimizer of the training loop. It may be attached later, with `attach_optimizer`.
        eval_frozen: Whether frozen units run in evaluation mode. Otherwise their dropout stays active.
        keep_optimizer_state: Whether the optimizer state of frozen parameters is kept in host memory and put back when
            they are thawed. Otherwise it is dropped.

    Raises:
        RequestError: If another `Freezer` holds the model.
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
        if model in _FREEZERS:
            raise RequestError(
                f"this {type(model).__name__} is already being frozen by another FreezeCallback or freeze(): "
                "use one, with one policy, or restore() the first."
            )
        self.stack = stack if stack is not None else find_blocks(model)
        self.model = model
        self.mask = FreezeMask(self.stack.depth)
        self._prefix = 0  # number of leading units that do not train
        self._parameters = dict(model.named_parameters())
        self._user_flags = {name: p.requires_grad for name, p in self._parameters.items()}
        self._frozen: frozenset[str] = frozenset()
        self._factors: dict[nn.Parameter, float] = {}
        self._groups: OptimizerGroups | None = None
        self._kept = KeptOptimizerState() if keep_optimizer_state else None
        self._partial = PartialFreeze(self._parameters)
        self._eval_frozen = eval_frozen
        self._handles: list[Any] = [OrderCheck(model, self.stack)]
        self._handles.append(InputGradientStop(model, lambda: self._prefix > 0))
        if eval_frozen:
            self._handles.append(model.register_forward_pre_hook(self._put_frozen_in_eval))
        _FREEZERS[model] = self
        if optimizer is not None:
            try:
                self.attach_optimizer(optimizer)
            except RequestError:
                self.release()
                raise

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer, without a wrapper of accelerate around it."""
        return None if self._groups is None else self._groups.optimizer

    def attach_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave frozen parameters out of the steps of `optimizer`, and drop the state it holds for them.

        Raises:
            RequestError: If it is the optimizer of another model, or the mask freezes parts of parameters and the
                optimizer does not step on the parameters of the model.
        """
        groups = OptimizerGroups(optimizer)
        if groups.is_foreign(self._parameters.values()):
            groups.remove()
            raise RequestError(
                f"this {type(groups.optimizer).__name__} trains no parameter of this {type(self.model).__name__}: "
                "build it from the parameters of the model that is frozen."
            )
        try:
            self._partial.attach(groups.optimizer)
        except RequestError:
            groups.remove()
            raise
        if self._groups is not None:
            self._groups.remove()
        self._groups = groups
        self._groups.hide(self._parameters[name] for name in self._frozen)
        self._groups.set_factors(self._factors)
        self._drop_optimizer_state(self._frozen)

    def apply(self, mask: FreezeMask) -> None:
        """Freeze what `mask` names, and thaw the rest, from now on.

        Raises:
            RequestError: If no parameter would be left to train, or a part of a parameter cannot be frozen under this
                optimizer or while parameters are sharded. Nothing is changed then.
            ValueError: If the mask is for a model of another depth.
        """
        frozen, slices = self.stack.frozen(mask), self.stack.slices(mask)
        if not any(self._user_flags.values()):
            raise RequestError(
                f"no parameter of this {type(self.model).__name__} requires a gradient, so nothing would train: set "
                "requires_grad for what is to train. Parameters that you froze are never thawed."
            )
        if not any(flag and name not in frozen for name, flag in self._user_flags.items()):
            raise RequestError(
                f"the mask '{mask}' leaves nothing to train: freeze fewer blocks, or leave the head or another unit "
                "trainable."
            )
        self._partial.check(slices)
        changed = False
        for name, parameter in self._parameters.items():
            wanted = self._user_flags[name] and name not in frozen
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
                changed = True
            if not wanted:
                # A leftover gradient, even of zeros, would still change the weight through momentum and decay.
                parameter.grad = None
        self._drop_optimizer_state(frozen - self._frozen)
        self._put_optimizer_state_back(self._frozen - frozen)
        self._put_frozen_in_train()
        self._partial.apply(slices)
        self.mask, self._frozen, self._prefix = mask, frozen, self.stack.prefix(mask)
        if self._groups is not None:
            self._groups.hide(self._parameters[name] for name in frozen)
        if changed:
            reshard(self.model)
        if changed and (dynamo := sys.modules.get("torch._dynamo")) is not None:
            dynamo.reset()  # a compiled frame may be reused after requires_grad changed (pytorch #139476)

    def scale_learning_rates(self, factors: Mapping[str, float]) -> None:
        """Multiply the learning rate of each unit by a factor, in every step from now on.

        The factor applies to the learning rate that the scheduler sets, whatever the scheduler.

        Args:
            factors: Unit name -> factor, 0 or more. Units that are not named have a factor of 1.

        Raises:
            RequestError: For an unknown unit, a negative or infinite factor, or an optimizer without a learning rate.
        """
        units = {unit.name: unit for unit in self.stack.units}
        for name, factor in factors.items():
            if name not in units:
                raise RequestError(
                    f"there is no unit {name!r} to set a learning rate for; there are {', '.join(units)}."
                )
            if not 0 <= factor < math.inf:
                raise RequestError(f"the factor on the learning rate of {name} must be 0 or more, not {factor!r}.")
        if self._groups is not None and any(g.get("lr") is None for g in self._groups.optimizer.param_groups):
            raise RequestError(
                f"{type(self._groups.optimizer).__name__} computes its own learning rate, so none can be set per unit: "
                "set its learning rate, or choose a policy that sets none."
            )
        self._factors = {
            self._parameters[p.name]: factor
            for name, factor in factors.items()
            if factor != 1
            for p in units[name].parameters
        }
        if self._groups is not None:
            self._groups.set_factors(self._factors)

    @contextmanager
    def user_flags(self) -> Iterator[None]:
        """Set the flags of the user for a while, and then those of the mask again."""
        flags = [(parameter, parameter.requires_grad) for parameter in self._parameters.values()]
        try:
            for name, parameter in self._parameters.items():
                parameter.requires_grad_(self._user_flags[name])
            yield
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    def restore(self) -> None:
        """Restore the flags and modes that the user had set, and detach from the model and the optimizer."""
        for name, parameter in self._parameters.items():
            if parameter.requires_grad != self._user_flags[name]:
                parameter.requires_grad_(self._user_flags[name])
        self._put_frozen_in_train()
        self.release()

    def release(self) -> None:
        """Detach from the model and the optimizer, and leave the flags as they are.

        Parameters that were frozen in part train whole from now on.
        """
        self._partial.remove()
        if self._groups is not None:
            self._groups.remove()
            self._groups = None
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if _FREEZERS.get(self.model) is self:
            del _FREEZERS[self.model]

    def __enter__(self) -> Freezer:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Return the kept optimizer state of frozen parameters for a checkpoint. Empty if none is kept."""
        return self._kept.tensors() if self._kept is not None else {}

    def load_optimizer_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `optimizer_state` returned. Other names are ignored."""
        if self._kept is not None:
            self._kept.load(tensors)

    def smallest_elements(self) -> dict[str, torch.Tensor]:
        """Return for a checkpoint which elements were frozen because they were the smallest. Empty if none were."""
        return self._partial.tensors()

    def load_smallest_elements(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `smallest_elements` returned, before `apply`. Other names are ignored."""
        self._partial.load(tensors)

    def without_optimizer_state(self) -> list[str]:
        """Return the names of the parameters for which the optimizer holds no state."""
        state = self._groups.optimizer.state if self._groups is not None else {}
        return [name for name, parameter in self._parameters.items() if not state.get(parameter)]

    def _drop_optimizer_state(self, names: Iterable[str]) -> None:
        if self._groups is None:
            return
        for name in names:
            state = self._groups.optimizer.state.pop(self._parameters[name], None)
            if self._kept is not None and state:
                self._kept.keep(name, state)

    def _put_optimizer_state_back(self, names: Iterable[str]) -> None:
        if self._groups is not None and self._kept is not None:
            for name in names:
                self._kept.put_back(self._groups.optimizer, name, self._parameters[name])

    def _frozen_modules(self) -> Iterator[nn.Module]:
        """The topmost modules of the units that are frozen whole, and of a prefix in which nothing trains."""
        for position, unit in enumerate(self.stack.units):
            if unit.name in self.mask.units or position < self._prefix:
                for path in unit.modules:
                    yield self.model.get_submodule(path)

    def _put_frozen_in_eval(self, model: nn.Module, *_: Any) -> None:
        # Before every forward pass, because Trainer calls model.train() in every step.
        if model.training:
            for module in self._frozen_modules():
                module.eval()

    def _put_frozen_in_train(self) -> None:
        if self._eval_frozen and self.model.training:
            for module in self._frozen_modules():
                module.train()
