"""Watch: all that one policy asked for, measured together and averaged over ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..policies.base import Norms
from .activations import Similarities
from .base import Measure
from .costs import Costs
from .gradients import GradientChange, GradientSum
from .samples import WeightSamples
from .timer import StepTimer
from .weights import Importance, WeightChanges, WeightNorms

MEASURES: dict[str, Callable[[nn.Module, BlockStack], Measure]] = {
    "gradients": GradientSum,
    "block gradients": functools.partial(GradientSum, blocks_only=True),
    "gradient_changes": GradientChange,
    "weights": WeightNorms,
    "weight_changes": WeightChanges,
    "weight_samples": WeightSamples,
    "importance": Importance,
    "similarities": Similarities,
}
COSTS = ("costs", "timed costs")
_FIELDS = {"block gradients": "gradients"}
_OF_GRADIENTS = {"gradients", "block gradients", "gradient_changes", "importance", "timed costs"}


class Watch:
    """Follows one training run for the `needs` of a policy. Raises `ValueError` for a need that nothing measures."""

    def __init__(self, needs: frozenset[str], model: nn.Module, stack: BlockStack, *, accumulation: int = 1) -> None:
        unknown = needs - set(MEASURES) - set(COSTS)
        if unknown:
            raise ValueError(f"nothing measures {sorted(unknown)}; there are {', '.join((*MEASURES, *COSTS))}")
        self._measures = {name: make(model, stack) for name, make in MEASURES.items() if name in needs}
        self._timer = StepTimer(model, stack) if "timed costs" in needs else None
        wanted = needs & set(COSTS)
        self._costs = Costs(model, stack, accumulation=accumulation, timer=self._timer) if wanted else None
        self.needs_gradients = bool(needs & _OF_GRADIENTS)
        self._device = next(model.parameters()).device
        self._handles: list[Any] = []
        if needs & {"similarities", *COSTS}:
            self._handles.append(model.register_forward_pre_hook(self._batch, with_kwargs=True))
        if self._timer is not None:
            self._handles.append(model.register_forward_hook(self._passed))

    def begin(self, due: int | None) -> None:
        """A step begins. `due` as for `Measure`, here and below."""
        if self._timer is not None:
            self._timer.begin(due)

    def gradients(self, due: int | None) -> None:
        """The raw gradients of a step are complete."""
        if self._timer is not None:
            self._timer.gradients()
        for measure in self._measures.values():
            measure.gradients(due)
        if self._timer is not None:
            self._timer.go_on()

    def stepped(self, due: int | None) -> None:
        """The optimizer has stepped."""
        if self._timer is not None:
            self._timer.stepped()
        for measure in self._measures.values():
            measure.stepped(due)
        if self._timer is not None:
            self._timer.go_on()

    def end(self) -> None:
        """The step has ended, and the policy has not been asked yet."""
        if self._timer is not None:
            self._timer.end()

    def read(self, *, cached: bool = False, examples_pass: float = 0.0) -> dict[str, Any]:
        """The measured fields of `Signals`, the same on every rank."""
        fields: dict[str, Any] = {
            _FIELDS.get(name, name): average_over_ranks(measure.read(), self._device)
            for name, measure in self._measures.items()
            if not measure.of_first_rank
        }
        for name, measure in self._measures.items():
            if measure.of_first_rank:
                fields[name] = of_first_rank(measure.read())
        if self._costs is not None:
            fields["costs"] = of_first_rank(self._costs.read(cached, examples_pass))
        return fields

    def reset(self) -> None:
        """The policy has been asked."""
        for measure in self._measures.values():
            measure.reset()

    def close(self) -> None:
        """Let go of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint needs to go on in mid-interval, by `need/name`."""
        parts: dict[str, Any] = {**self._measures, **({"costs": self._costs} if self._costs else {})}
        return {f"{need}/{name}": value for need, part in parts.items() for name, value in part.tensors().items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave. Names of no concern to this policy are passed over."""
        parts: dict[str, Any] = {**self._measures, **({"costs": self._costs} if self._costs else {})}
        for need, part in parts.items():
            own = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{need}/")}
            if own:
                part.load(own)

    def _batch(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training:
            for measure in self._measures.values():
                measure.batch(kwargs)
            if self._costs is not None:
                self._costs.batch(kwargs)

    def _passed(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._timer is not None and module.training:
            self._timer.passed()


def average_over_ranks(reading: Mapping[str, Any], device: torch.device) -> Any:
    """`reading`, of numbers and `Norms`, averaged over the ranks, which all must hold the same names in order."""
    if _ranks() == 1:
        return reading
    numbers = [number for value in reading.values() for number in _numbers(value)]
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    means = iter((tensor / torch.distributed.get_world_size()).tolist())
    return {name: _rebuilt(value, means) for name, value in reading.items()}


def of_first_rank(value: Any) -> Any:
    """What rank 0 has, on every rank."""
    if _ranks() == 1:
        return value
    held = [value]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]


def _ranks() -> int:
    alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    return 1 if alone else torch.distributed.get_world_size()


def _numbers(value: Norms | float) -> list[float]:
    return [value.l1, value.l2] if isinstance(value, Norms) else [value]


def _rebuilt(value: Norms | float, means: Iterator[float]) -> Norms | float:
    return Norms(next(means), next(means)) if isinstance(value, Norms) else next(means)
