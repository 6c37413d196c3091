"""The parameter groups that an optimizer sees while it steps: no frozen parameters, one learning rate per unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


class OptimizerGroups:
    """Rewrites the parameter groups of an optimizer for each step, and restores them after it.

    Frozen parameters are left out: some optimizers (Muon in torch) update a parameter even without a gradient.
    Parameters with a learning-rate factor get a group of their own. Outside of `optimizer.step()` the groups are
    those of the user, so that schedulers, checkpoints and logs work as usual.

    Args:
        optimizer: The optimizer, or a wrapper of accelerate around it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        inner: Any = optimizer
        while not isinstance(inner, torch.optim.Optimizer) or hasattr(inner, "optimizer"):
            inner = inner.optimizer  # the wrapper of accelerate
        self.optimizer: torch.optim.Optimizer = inner
        self._hidden: frozenset[int] = frozenset()
        self._factors: dict[int, float] = {}
        self._full_groups: list[list[nn.Parameter]] = []
        self._split: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None
        self._handles: list[Any] = [
            inner.register_step_pre_hook(self._before_step),
            inner.register_step_post_hook(self._after_step),
        ]

    def is_foreign(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Return whether the optimizer trains parameters, but none of `parameters`.

        An optimizer over tensors of its own, such as the flat partitions of DeepSpeed, is not foreign.
        """
        own = [p for group in self.optimizer.param_groups for p in group["params"]]
        known = {id(parameter) for parameter in parameters}
        return bool(own) and all(isinstance(p, nn.Parameter) and id(p) not in known for p in own)

    def hide(self, parameters: Iterable[nn.Parameter]) -> None:
        """Leave `parameters`, and no others, out of every step from now on."""
        self._hidden = frozenset(id(parameter) for parameter in parameters)

    def set_factors(self, factors: Mapping[nn.Parameter, float]) -> None:
        """Multiply the learning rate of each parameter by its factor, 1 where none is given."""
        self._factors = {id(parameter): factor for parameter, factor in factors.items()}

    def remove(self) -> None:
        """Restore the groups and remove the hooks."""
        self._after_step()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._after_step()  # if the last step ended in an exception
        self._full_groups = [group["params"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in self._hidden]
        if self._factors:
            split = [self._by_factor(group) for group in optimizer.param_groups]
            self._split = (optimizer.param_groups, [groups[0] for groups in split])
            optimizer.param_groups = [group for groups in split for group in groups]

    def _by_factor(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        parameters: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parameters.setdefault(self._factors.get(id(parameter), 1.0), []).append(parameter)
        if not parameters:
            return [dict(group)]
        return [{**group, "params": own, "lr": group["lr"] * factor} for factor, own in parameters.items()]

    def _after_step(self, *_: Any) -> None:
        if not self._full_groups:
            return
        if self._split is not None:
            groups, first_parts = self._split
            for group, part in zip(groups, first_parts, strict=True):
                # Some optimizers store counters and distances in their groups; these have to outlive the step.
                group.update({key: value for key, value in part.items() if key not in ("params", "lr")})
            self.optimizer.param_groups = groups
            self._split = None
        for group, parameters in zip(self.optimizer.param_groups, self._full_groups, strict=True):
            group["params"] = parameters
        self._full_groups = []
