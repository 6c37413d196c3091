"""What a mask costs: a step's forward, input-gradient, weight-gradient and optimizer work, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import BlockStack, ParameterInfo, Unit
from .mask import FreezeMask
from .timeline import Timeline

# One AdamW step reads weight, gradient and two moments and writes weight and two moments; clipping reads and scales
# the gradient, zeroing drops it: values moved per trained value.
OPTIMIZER_MOVES = 7 + 3
# A table's dense gradient is cleared, and added to where a token was looked up.
LOOKUP_MOVES = 1
# Arithmetic operations in the time that one byte takes to or from memory, for fp32 on a few CPU cores; a GPU has more,
# and its ratios lie closer to pure arithmetic.
FLOPS_PER_BYTE = 10.0
# What storing a cache's rows adds to a step, as a share of it: up to 0.011 was measured (benchmarks/results/step.md).
FILLING = 0.03


@dataclass(frozen=True)
class StepShape:
    """A training step: `examples` sequences of `tokens` tokens, values of `bytes_per_value` bytes."""

    examples: int = 8
    tokens: int = 64
    bytes_per_value: int = 4
    flops_per_byte: float = FLOPS_PER_BYTE


@dataclass(frozen=True)
class StepCost:
    """Work of one training step, all four in floating-point operations (memory traffic converted into them)."""

    forward: float
    input_gradient: float
    weight_gradient: float
    optimizer: float

    @property
    def backward(self) -> float:
        """Both gradients."""
        return self.input_gradient + self.weight_gradient

    @property
    def total(self) -> float:
        """The four together."""
        return self.forward + self.input_gradient + self.weight_gradient + self.optimizer


@dataclass(frozen=True)
class StepSeconds:
    """A step of full fine-tuning by the clock, in seconds. `other`: what belongs to no part, and no mask shortens."""

    forward: float
    backward: float
    optimizer: float
    other: float

    @property
    def total(self) -> float:
        """The four together."""
        return self.forward + self.backward + self.optimizer + self.other


def predict(stack: BlockStack, mask: FreezeMask, shape: StepShape | None = None, *, cached: bool = False) -> StepCost:
    """What one step costs under `mask`; with `cached`, when the frozen prefix is skipped and not run.

    - forward: every unit, but for a skipped prefix;
    - input gradient: every unit above the lowest one that trains, since the signal has to pass through frozen ones;
    - weight gradient and optimizer: what trains.

    Dropout, normalisation and activation functions are taken to be in proportion to the matrix products. Raises
    `ValueError` for a mask of another depth.
    """
    shape = shape or StepShape()
    frozen = stack.frozen(mask)
    skipped = mask.prefix if cached else 0
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
            # Within the unit gradients flow too, all but the one that would leave it at the bottom.
            input_gradient += 2 * attention + _inner_share(unit) * sum(_matmul_flops(p, shape) for p in unit.parameters)
        weight_gradient += sum(_matmul_flops(p, shape) for p in trained)
        moved += sum(p.size * (OPTIMIZER_MOVES + (LOOKUP_MOVES if p.use in ("lookup", "tied") else 0)) for p in trained)
    # The output layer tied to a skipped or frozen table still multiplies every token.
    for parameter in (p for u in stack.units[: max(skipped, 0)] for p in u.parameters if p.use == "tied"):
        forward += _matmul_flops(parameter, shape)
    if skipped:
        moved += shape.examples * shape.tokens * stack.hidden_size
    return StepCost(forward, input_gradient, weight_gradient, moved * shape.bytes_per_value * shape.flops_per_byte)


def step_ratio(stack: BlockStack, mask: FreezeMask, shape: StepShape | None = None, *, cached: bool = False) -> float:
    """Predicted time of a step under `mask` / time of a step of full fine-tuning."""
    return cost_ratio(predict(stack, mask, shape, cached=cached), predict(stack, FreezeMask(stack.depth), shape))


def cost_ratio(own: StepCost, full: StepCost, measured: StepSeconds | None = None) -> float:
    """Predicted time of a step that costs `own` / time of one of full fine-tuning, which costs `full`.

    With the full step `measured`, the shapes say only which share of each of its parts is left: how fast this machine
    multiplies, how fast it moves memory, and what the loop costs is then known and not assumed.
    """
    if measured is None:
        return own.total / full.total
    # The shares first: each is exactly 1 where nothing is saved, and so is then the ratio.
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
    """`step_ratio` over a whole run of `steps` steps, each span of the timeline weighted by its length."""
    spans = timeline.spans(steps)
    return sum(step_ratio(stack, mask, shape, cached=cached) * held for mask, held in spans) / max(1, steps)


def filling_pays(
    stack: BlockStack, mask: FreezeMask, passes: float, shape: StepShape | None = None, *, overhead: float = FILLING
) -> bool:
    """Whether a cache of the frozen prefix earns back what filling it costs, with `passes` passes over the data to go.

    The first of them fills it, at `overhead` of a step's time; in the others an example's prefix is not run.
    """
    frozen = predict(stack, mask, shape).total
    saved = frozen - predict(stack, mask, shape, cached=True).total
    return saved * (passes - 1) > overhead * frozen


def optimizer_bytes(stack: BlockStack, mask: FreezeMask, *, moments: int = 2, bytes_per_value: int = 4) -> int:
    """Memory of the optimizer's state under `mask`; AdamW keeps two moments a value."""
    return stack.trainable_parameters(mask) * moments * bytes_per_value


def _lowest_trainable(stack: BlockStack, frozen: frozenset[str]) -> int:
    for position, unit in enumerate(stack.units):
        if any(p.trainable and p.name not in frozen for p in unit.parameters):
            return position
    return len(stack.units)


def _matmul_flops(parameter: ParameterInfo, shape: StepShape) -> float:
    if parameter.use not in ("matmul", "tied", "expert"):
        return 0.0
    return 2.0 * parameter.size * parameter.active * shape.examples * shape.tokens


def _attention_flops(stack: BlockStack, unit: Unit, shape: StepShape) -> float:
    """Scores and their use: two products of (tokens × tokens × hidden) an example, in blocks alone."""
    if unit in (stack.units[0], stack.units[-1]):
        return 0.0
    return 4.0 * shape.examples * shape.tokens**2 * stack.hidden_size


def _inner_share(unit: Unit) -> float:
    """Share of a unit's matrices whose input comes from inside it; a table looks nothing up in its gradient."""
    matrices = [p for p in unit.parameters if p.use == "matmul"]
    return 0.75 if len(matrices) > 1 else 0.0
