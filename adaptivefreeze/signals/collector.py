"""SignalCollector: measures all signals that one policy needs, and averages them over ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from .activations import Similarities
from .base import Measure
from .costs import Costs
from .gradients import GradientChange, GradientSum
from .profiler import StepProfiler
from .ranks import average_over_ranks, broadcast_from_first_rank
from .samples import WeightSamples
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
_FROM_GRADIENTS = {"gradients", "block gradients", "gradient_changes", "importance", "timed costs"}


class SignalCollector:
    """Measures the signals that a policy needs during one training run.

    The training loop reports its events: `begin_step`, `gradients_ready`, `optimizer_stepped`, `end_step`. In each,
    `due` is as for `Measure`. Forward passes are observed through hooks on the model.

    Args:
        needs: Names of signals, as listed in `adaptivefreeze.signals`.
        model: The model that is trained.
        stack: Its units.
        accumulation: Micro-batches per optimizer step.

    Attributes:
        paused: Whether forward passes are ignored.

    Raises:
        ValueError: For a name that is not a signal.
    """

    def __init__(self, needs: frozenset[str], model: nn.Module, stack: BlockStack, *, accumulation: int = 1) -> None:
        unknown = needs - set(MEASURES) - set(COSTS)
        if unknown:
            raise ValueError(f"unknown signals {sorted(unknown)}; there are {', '.join((*MEASURES, *COSTS))}")
        self._measures = {name: make(model, stack) for name, make in MEASURES.items() if name in needs}
        self._profiler = StepProfiler(model, stack) if "timed costs" in needs else None
        wanted = needs & set(COSTS)
        self._costs = Costs(model, stack, accumulation=accumulation, profiler=self._profiler) if wanted else None
        self.needs_gradients = bool(needs & _FROM_GRADIENTS)
        self._device = next(model.parameters()).device
        self.paused = False
        self._handles: list[Any] = []
        if needs & {"similarities", *COSTS}:
            self._handles.append(model.register_forward_pre_hook(self._before_forward, with_kwargs=True))
        if self._profiler is not None:
            self._handles.append(model.register_forward_hook(self._after_forward))

    def begin_step(self, due: int | None) -> None:
        """Call at the start of each step."""
        if self._profiler is not None:
            self._profiler.begin_step(due)

    def gradients_ready(self, due: int | None) -> None:
        """Call when the gradients of a step are complete, before they are clipped."""
        if self._profiler is not None:
            self._profiler.on_gradients()
        for measure in self._measures.values():
            measure.on_gradients(due)
        if self._profiler is not None:
            self._profiler.resume()

    def optimizer_stepped(self, due: int | None) -> None:
        """Call after each step of the optimizer."""
        if self._profiler is not None:
            self._profiler.on_optimizer_step()
        for measure in self._measures.values():
            measure.on_optimizer_step(due)
        if self._profiler is not None:
            self._profiler.resume()

    def end_step(self) -> None:
        """Call at the end of each step, before the policy decides."""
        if self._profiler is not None:
            self._profiler.end_step()

    def read(self, *, cached: bool = False, examples_pass: float = 0.0) -> dict[str, Any]:
        """Return the measured fields of `Signals`, equal on every rank.

        Args:
            cached: Whether the prefix cache is active.
            examples_pass: Optimizer steps in one pass over the training data.
        """
        fields: dict[str, Any] = {
            _FIELDS.get(name, name): average_over_ranks(measure.read(), self._device)
            for name, measure in self._measures.items()
            if not measure.first_rank_only
        }
        for name, measure in self._measures.items():
            if measure.first_rank_only:
                fields[name] = broadcast_from_first_rank(measure.read())
        if self._costs is not None:
            fields["costs"] = broadcast_from_first_rank(self._costs.read(cached, examples_pass))
        return fields

    def reset(self) -> None:
        """Start a new interval. Call after the policy has decided."""
        for measure in self._measures.values():
            measure.reset()

    def close(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state for a checkpoint, as `signal/name` -> tensor."""
        return {f"{name}/{key}": value for name, part in self._parts() for key, value in part.tensors().items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned. Names of other signals are ignored."""
        for name, part in self._parts():
            own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
            if own:
                part.load(own)

    def _parts(self) -> Iterator[tuple[str, Measure | Costs]]:
        yield from self._measures.items()
        if self._costs is not None:
            yield "costs", self._costs

    def _before_forward(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training and not self.paused:
            for measure in self._measures.values():
                measure.on_batch(kwargs)
            if self._costs is not None:
                self._costs.on_batch(kwargs)

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._profiler is not None and module.training and not self.paused:
            self._profiler.on_forward_end()
