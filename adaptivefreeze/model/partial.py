"""PartialFreeze: keeps parts of parameters as they are while an optimizer trains the rest of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..errors import RequestError
from .slices import Slice, ranges_of

_STORED = "smallest elements"  # the first part of a name in a checkpoint
_FEW_RANGES = 16  # up to so many ranges are copied one by one


class PartialFreeze:
    """Freezes slices of the parameters of a model.

    The gradient of a frozen element is zero from the backward pass on, so that it takes no part in the norm that
    gradients are clipped by. That is not enough: momentum and weight decay move elements without a gradient, and some
    optimizers mix the elements of a matrix. So each frozen element gets its value of before the step back after it.
    This takes a copy of the frozen rows or columns during the step, or of the parameter where single elements are
    frozen. Gradients and optimizer state keep the shape of the parameter.

    Args:
        parameters: The parameters of the model by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._frozen: dict[str, _FrozenPart] = {}
        self._smallest: dict[str, torch.Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._gradient_hooks: list[Any] = []
        self._step_hooks: list[Any] = []

    def check(self, slices: Mapping[str, tuple[Slice, ...]]) -> None:
        """Raise `RequestError` if these slices cannot be frozen here."""
        if not slices:
            return
        if any(part.choice == "unseen" for own in slices.values() for part in own):
            raise RequestError(
                "which tokens do not occur in the training data is known to a FreezeCallback in a Trainer only: list "
                "the rows of the embeddings that are to train."
            )
        if any(isinstance(self._parameters[name], DTensor) for name in slices):
            raise RequestError(
                "a part of a parameter cannot be frozen while FSDP shards it: train with DDP, or choose a policy that "
                "freezes whole parameters."
            )
        if self._optimizer is not None:
            self._check_optimizer(self._optimizer)

    def apply(self, slices: Mapping[str, tuple[Slice, ...]]) -> None:
        """Freeze these slices and no others, by the name of the parameter. `check` them first."""
        self._remove(self._gradient_hooks)
        self._frozen = {}
        for name, own in slices.items():
            parameter = self._parameters[name]
            if not parameter.requires_grad:  # the user froze it
                continue
            frozen = torch.zeros((), dtype=torch.bool)
            for part in own:
                frozen = frozen | self._resolved(name, parameter, part)
            self._frozen[name] = _FrozenPart(parameter, frozen)
            hooked: Any = parameter
            self._gradient_hooks.append(hooked.register_hook(functools.partial(self._without_frozen, name)))

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the frozen elements in every step of `optimizer`.

        Raises:
            RequestError: If something is frozen in part, and the optimizer does not step on the model's parameters.
        """
        if self._frozen:
            self._check_optimizer(optimizer)
        self._remove(self._step_hooks)
        self._optimizer = optimizer
        self._step_hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Remove all hooks. Nothing is frozen then."""
        self._remove(self._gradient_hooks)
        self._remove(self._step_hooks)
        self._frozen = {}
        self._optimizer = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return for a checkpoint which elements were the smallest when freezing started."""
        return {f"{_STORED}/{name}": value for name, value in self._smallest.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned, before `apply`. Other names are ignored."""
        found = {path.partition("/")[2]: value for path, value in tensors.items() if path.startswith(f"{_STORED}/")}
        self._smallest |= found

    def _check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        kind = type(optimizer).__name__
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if own and not own & {id(p) for p in self._parameters.values()}:
            raise RequestError(
                f"a part of a parameter cannot be frozen with {kind}, which trains copies of the parameters "
                "(DeepSpeed, layer-wise optimizers): train without it, or with a policy that freezes whole parameters."
            )
        if callable(getattr(optimizer, "eval", None)):
            raise RequestError(
                f"a part of a parameter cannot be frozen with {kind}, which changes parameters between steps: choose "
                "another optimizer, or a policy that freezes whole parameters."
            )

    def _resolved(self, name: str, parameter: nn.Parameter, part: Slice) -> torch.Tensor:
        shape = tuple(parameter.shape)
        if part.choice != "smallest":
            return torch.from_numpy(part.frozen(name, shape))
        key = f"{part.share}/{part.axis}/{name}"
        if key not in self._smallest:  # chosen once: what is smallest changes in training
            values = parameter.detach().abs().float()
            others = [i for i in range(values.dim()) if i != part.axis]
            sizes = values.flatten() if part.axis is None else values.sum(others) if others else values
            chosen = torch.zeros(len(sizes), dtype=torch.bool)
            chosen[sizes.argsort(stable=True)[: part.count(shape)].cpu()] = True
            self._smallest[key] = torch.from_numpy(part.shaped(chosen.numpy(), shape))
        return self._smallest[key]

    def _without_frozen(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient of a parameter, zero where it is frozen."""
        if self._optimizer is None:
            raise RequestError(
                f"a part of {name} is frozen, and weight decay or momentum would move it: pass the optimizer to "
                "freeze(), or to attach_optimizer()."
            )
        frozen = self._frozen[name].mask
        if gradient.layout == torch.sparse_coo:  # of an embedding table, some rows
            gradient = gradient.coalesce()
            rows = frozen.expand(gradient.shape)[gradient.indices()[0]]
            values = gradient.values().masked_fill(rows, 0)
            return torch.sparse_coo_tensor(
                gradient.indices(), values, gradient.shape, is_coalesced=True, check_invariants=False
            )
        return gradient.masked_fill(frozen, 0)

    def _before_step(self, *_: Any) -> None:
        for part in self._frozen.values():
            part.keep()

    def _after_step(self, *_: Any) -> None:
        for part in self._frozen.values():
            part.restore()

    @staticmethod
    def _remove(hooks: list[Any]) -> None:
        for hook in hooks:
            hook.remove()
        hooks.clear()


class _FrozenPart:
    """Copies what is frozen in a parameter before a step of the optimizer, and writes it back after the step.

    Args:
        parameter: The parameter.
        frozen: Booleans that broadcast to its shape.
    """

    def __init__(self, parameter: nn.Parameter, frozen: torch.Tensor) -> None:
        self._parameter = parameter
        self._mask = frozen
        self._kept: list[torch.Tensor] = []
        # Copying frozen rows or columns alone is faster than copying the parameter and merging, if the ranges are few.
        axes = [axis for axis, size in enumerate(frozen.shape) if size > 1]
        self._axis = axes[0] if len(axes) == 1 else None
        numbers = frozen.flatten().nonzero().flatten()
        ranges = ranges_of(numbers.tolist()) if len(axes) == 1 else ()
        self._ranges = ranges if len(ranges) <= _FEW_RANGES else ()
        self._rows = numbers if self._axis == 0 else None

    @property
    def mask(self) -> torch.Tensor:
        """What is frozen, on the device where the parameter is now."""
        self._mask = self._mask.to(self._parameter.device)
        return self._mask

    def keep(self) -> None:
        """Copy what is frozen."""
        values = self._parameter.detach()
        if self._ranges:
            self._kept = [view.clone() for view in self._views(values)]
        elif self._rows is not None:
            self._rows = self._rows.to(values.device)
            self._kept = [values.index_select(0, self._rows)]
        else:
            self._kept = [values.clone()]

    def restore(self) -> None:
        """Write it back."""
        values = self._parameter.detach()
        if self._ranges:
            for view, before in zip(self._views(values), self._kept, strict=True):
                view.copy_(before)
        elif self._rows is not None:
            values.index_copy_(0, self._rows, self._kept[0])
        else:
            torch.where(self.mask, self._kept[0], values, out=values)
        self._kept = []

    def _views(self, values: torch.Tensor) -> list[torch.Tensor]:
        return [values.narrow(self._axis or 0, start, end - start) for start, end in self._ranges]
