"""Predicts the cost of a training step under a mask, from the shapes of the parameters and of the batch."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import BlockStack, ParameterInfo, Unit, frozen_size
from .mask import FreezeMask
from .slices import Slice
from .timeline import Timeline

# Memory accesses per trained element. AdamW reads the weight, the gradient and two moments, and writes the weight and
# two moments. Clipping reads and writes the gradient, and zeroing drops it.
OPTIMIZER_MOVES = 7 + 3
# The dense gradient of an embedding table is cleared, and added to for the tokens in the batch.
LOOKUP_MOVES = 1
# A parameter that trains in part: its gradient is masked. Its frozen rows or columns are copied before the step, and
# back after it. Where single elements are frozen, the parameter is copied and merged.
PARTIAL_GRADIENT_MOVES = 2
PARTIAL_ROW_MOVES = 2 + 2
PARTIAL_ELEMENT_MOVES = 2 + 3
# Arithmetic operations per byte of memory traffic, for fp32 on a few CPU cores. The value is higher for a GPU, where
# cost ratios are closer to those of arithmetic alone.
FLOPS_PER_BYTE = 10.0
# Time for storing rows in the cache, as a share of a step. Measured: up to 0.011 (benchmarks/results/step.md).
FILLING = 0.03


@dataclass(frozen=True)
class StepShape:
    """The shape of a training step.

    Attributes:
        examples: Sequences in the batch.
        tokens: Tokens per sequence, padding included.
        bytes_per_value: Bytes per element of the weights.
        flops_per_byte: Arithmetic operations in the time that one byte takes to or from memory.
    """

    examples: int = 8
    tokens: int = 64
    bytes_per_value: int = 4
    flops_per_byte: float = FLOPS_PER_BYTE


@dataclass(frozen=True)
class StepCost:
    """The cost of one training step in floating-point operations. Memory traffic is converted into operations."""

    forward: float
    input_gradient: float
    weight_gradient: float
    optimizer: float

    @property
    def backward(self) -> float:
        """Cost of both gradients."""
        return self.input_gradient + self.weight_gradient

    @property
    def total(self) -> float:
        """Sum of the four parts."""
        return self.forward + self.input_gradient + self.weight_gradient + self.optimizer


@dataclass(frozen=True)
class StepSeconds:
    """Measured duration of a step of full fine-tuning, in seconds.

    Attributes:
        forward: Forward passes.
        backward: Backward passes.
        optimizer: Gradient clipping and the step of the optimizer.
        other: The rest, which no mask shortens.
    """

    forward: float
    backward: float
    optimizer: float
    other: float

    @property
    def total(self) -> float:
        """Sum of the four parts."""
        return self.forward + self.backward + self.optimizer + self.other


def predict(stack: BlockStack, mask: FreezeMask, shape: StepShape | None = None, *, cached: bool = False) -> StepCost:
    """Predict the cost of one training step under a mask.

    The forward pass runs every unit, without a skipped prefix. Gradients of inputs are computed for every unit above
    the lowest trainable one, because they pass through frozen units. Gradients of weights and the optimizer concern
    trainable parameters only. A parameter that trains in part costs as much as one that trains whole, and the traffic
    that keeps its frozen elements. Dropout, normalization and activation functions are assumed to be proportional to
    the matrix products.

    Args:
        stack: The units of the model.
        mask: The mask.
        shape: The shape of the step. 8 sequences of 64 tokens by default.
        cached: Whether the cache skips the frozen prefix.

    Raises:
        ValueError: If the mask is for a model of another depth.
    """
    shape = shape or StepShape()
    frozen, in_part = stack.frozen(mask), stack.slices(mask)
    skipped = stack.prefix(mask) if cached else 0
    lowest = _lowest_trainable(stack, frozen)
    forward = input_gradient = weight_gradient = moved = 0.0
    for position, unit in enumerate(stack.units):
        trained = [p for p in unit.parameters if p.trainable and p.name not in frozen]
        attention = _attention_flops(stack, unit, shape)
        if position >= skipped:
            forward += attention + sum(_matmul_flops(p, shape) for p in unit.parameters)
        if position > lowest:
            input_gradient += 2 * attention + sum(_matmul_flops(p, shape) for p in unit.parameters)
        elif position == lowest and trained:
            # Inside the unit gradients are propagated too, except the one with respect to its input.
            input_gradient += 2 * attention + _inner_share(unit) * sum(_matmul_flops(p, shape) for p in unit.parameters)
        weight_gradient += sum(_matmul_flops(p, shape) for p in trained)
        moved += sum(p.size * (OPTIMIZER_MOVES + (LOOKUP_MOVES if p.use in ("lookup", "tied") else 0)) for p in trained)
        moved += sum(_partial_moves(p, in_part[p.name]) for p in trained if p.name in in_part)
    # An output layer that is tied to a skipped table still multiplies every token.
    for parameter in (p for u in stack.units[: max(skipped, 0)] for p in u.parameters if p.use == "tied"):
        forward += _matmul_flops(parameter, shape)
    if skipped:
        moved += shape.examples * shape.tokens * stack.hidden_size
    return StepCost(forward, input_gradient, weight_gradient, moved * shape.bytes_per_value * shape.flops_per_byte)


def step_ratio(stack: BlockStack, mask: FreezeMask, shape: StepShape | None = None, *, cached: bool = False) -> float:
    """Predict the time of a step under `mask`, relative to a step of full fine-tuning."""
    return cost_ratio(predict(stack, mask, shape, cached=cached), predict(stack, FreezeMask(stack.depth), shape))


def cost_ratio(own: StepCost, full: StepCost, measured: StepSeconds | None = None) -> float:
    """Predict the time of a step relative to a step of full fine-tuning.

    Args:
        own: Cost of the step.
        full: Cost of a step of full fine-tuning.
        measured: Measured duration of a full step on this machine. Then only the remaining share of each of its parts
            is predicted, and no assumption about the speed of arithmetic and memory is needed.
    """
    if measured is None:
        return own.total / full.total
    # Shares are computed first: each is exactly 1 if nothing is saved, and then so is the ratio.
    left = StepSeconds(
        measured.forward * (own.forward / full.forward),
        measured.backward * (own.backward / full.backward),
        measured.optimizer * (own.optimizer / full.optimizer),
        measured.other,
    )
    return left.total / measured.total


def run_ratio(
    stack: BlockStack, timeline: Timeline, steps: int, shape: StepShape | None = None, *, cached: bool = False
) -> float:
    """Return the mean `step_ratio` over a run of `steps` steps with the masks of `timeline`."""
    spans = timeline.spans(steps)
    return sum(step_ratio(stack, mask, shape, cached=cached) * held for mask, held in spans) / max(1, steps)


def filling_pays(
    stack: BlockStack, mask: FreezeMask, passes: float, shape: StepShape | None = None, *, overhead: float = FILLING
) -> bool:
    """Return whether a cache of the frozen prefix saves more time than it takes to fill.

    The work of a convolution depends on the size of its image, which the parameters do not show. In a model with
    convolutions in its blocks, filling is taken to pay with two passes left.

    Args:
        stack: The units of the model.
        mask: The mask.
        passes: Passes over the training data that are left. The first one fills the cache, the others use it.
        shape: The shape of a step.
        overhead: Time for storing rows, as a share of a step.
    """
    if any(len(p.shape) == 4 for unit in stack.blocks for p in unit.parameters):
        return passes >= 2
    frozen = predict(stack, mask, shape).total
    saved = frozen - predict(stack, mask, shape, cached=True).total
    return saved * (passes - 1) > overhead * frozen


def optimizer_bytes(stack: BlockStack, mask: FreezeMask, *, moments: int = 2, bytes_per_value: int = 4) -> int:
    """Return the size of the optimizer state under `mask`, in bytes. AdamW keeps two moments per element."""
    return stack.optimized_parameters(mask) * moments * bytes_per_value


def _lowest_trainable(stack: BlockStack, frozen: frozenset[str]) -> int:
    for position, unit in enumerate(stack.units):
        if any(p.trainable and p.name not in frozen for p in unit.parameters):
            return position
    return len(stack.units)


def _partial_moves(parameter: ParameterInfo, slices: tuple[Slice, ...]) -> int:
    """Memory accesses that keep the frozen part of a parameter."""
    axes = {part.axis for part in slices}
    rows = len(axes) == 1 and None not in axes
    kept = frozen_size(parameter, slices) * PARTIAL_ROW_MOVES if rows else parameter.size * PARTIAL_ELEMENT_MOVES
    return parameter.size * PARTIAL_GRADIENT_MOVES + kept


def _matmul_flops(parameter: ParameterInfo, shape: StepShape) -> float:
    if parameter.use not in ("matmul", "tied", "expert"):
        return 0.0
    return 2.0 * parameter.size * parameter.active * shape.examples * shape.tokens


def _attention_flops(stack: BlockStack, unit: Unit, shape: StepShape) -> float:
    """Attention scores and weighted values: two products of (tokens × tokens × hidden) per example, in blocks only."""
    if unit in (stack.units[0], stack.units[-1]):
        return 0.0
    return 4.0 * shape.examples * shape.tokens**2 * stack.hidden_size


def _inner_share(unit: Unit) -> float:
    """Share of the matrices of a unit whose input is computed inside the unit, and therefore needs a gradient."""
    matrices = [p for p in unit.parameters if p.use == "matmul"]
    return 0.75 if len(matrices) > 1 else 0.0
