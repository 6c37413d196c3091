"""cost: orders of predicted costs that hold on every machine."""

import pytest
from architectures import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from training import tiny_bert

from adaptivefreeze import BottomUp, FreezeMask, Interleaved, Nothing, Timeline, TopDown, find_blocks
from adaptivefreeze.model.cost import (
    StepSeconds,
    StepShape,
    cost_ratio,
    optimizer_bytes,
    predict,
    run_ratio,
    step_ratio,
)

SHAPE = StepShape(8, 64)
STACK = find_blocks(tiny_bert(blocks=8))


@pytest.fixture
def stack():
    return STACK


def ratio(stack, policy, *, cached=False, measured=None):
    mask = policy.initial_mask(stack)
    if measured is None:
        return step_ratio(stack, mask, SHAPE, cached=cached)
    return cost_ratio(predict(stack, mask, SHAPE, cached=cached), predict(stack, FreezeMask(8), SHAPE), measured)


def test_deeper_is_cheaper_and_the_cache_is_cheapest(stack):
    for policy in (BottomUp, TopDown):
        ratios = [ratio(stack, policy(k)) for k in range(9)]
        assert ratios[0] == 1
        assert ratios == sorted(ratios, reverse=True)
    for k in range(1, 9):
        assert ratio(stack, BottomUp(k), cached=True) < ratio(stack, BottomUp(k)) < ratio(stack, TopDown(k))
    assert ratio(stack, Nothing(), cached=True) == 1
    assert ratio(stack, Interleaved(2), cached=True) == ratio(stack, Interleaved(2))


def test_a_step_is_forward_input_gradient_and_weight_gradient(stack):
    full = predict(stack, FreezeMask(8), SHAPE)
    assert full.weight_gradient < full.forward <= full.input_gradient * 1.3
    frozen = predict(stack, BottomUp(4).initial_mask(stack), SHAPE)
    assert frozen.forward == full.forward
    assert 0.3 < frozen.input_gradient / full.input_gradient < 0.6
    top = predict(stack, TopDown(4).initial_mask(stack), SHAPE)
    assert top.input_gradient == full.input_gradient  # gradients pass through frozen blocks
    assert top.weight_gradient == pytest.approx(frozen.weight_gradient, rel=0.01)


def test_a_run_is_weighted_by_its_timeline(stack):
    timeline = Timeline()
    timeline.record(0, FreezeMask(8), "start")
    timeline.record(30, FreezeMask.first(8, 4), "half")
    half = ratio(stack, BottomUp(4))
    assert run_ratio(stack, timeline, 40, SHAPE) == pytest.approx(0.75 + 0.25 * half)


def test_optimizer_memory_is_of_trainable_parameters(stack):
    assert optimizer_bytes(stack, FreezeMask(8)) == stack.total * 2 * 4
    mask = BottomUp(4).initial_mask(stack)
    assert optimizer_bytes(stack, mask, moments=1) == stack.trainable_parameters(mask) * 4


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_architecture_has_a_cost(architecture):
    stack = find_blocks(architecture.build(), architecture.tower)
    ratios = [step_ratio(stack, FreezeMask.first(stack.depth, k), SHAPE) for k in range(1, stack.depth + 1)]
    assert all(0 < r < 1 for r in ratios)
    assert ratios == sorted(ratios, reverse=True)


def test_a_measured_step_weights_the_parts(stack):
    """Parts in the predicted proportions change nothing. If the rest takes all the time, freezing saves nothing."""
    full = predict(stack, FreezeMask(8), SHAPE)
    alike = StepSeconds(full.forward, full.backward, full.optimizer, 0)
    for k in range(9):
        for cached in (False, True):
            assert ratio(stack, BottomUp(k), cached=cached, measured=alike) == pytest.approx(
                ratio(stack, BottomUp(k), cached=cached)
            )
            assert ratio(stack, BottomUp(k), cached=cached, measured=StepSeconds(0, 0, 0, 1)) == 1
    only_forward = StepSeconds(1, 0, 0, 0)
    assert ratio(stack, BottomUp(8), measured=only_forward) == pytest.approx(1)
    assert ratio(stack, BottomUp(8), cached=True, measured=only_forward) < 0.05


SECONDS = st.floats(1e-6, 1e3)


@given(st.builds(StepSeconds, SECONDS, SECONDS, SECONDS, SECONDS))
def test_full_fine_tuning_has_a_ratio_of_exactly_one(measured):
    """The ratio of a full step is exactly 1 for any measured times."""
    assert ratio(STACK, Nothing(), measured=measured) == 1
    assert ratio(STACK, Nothing(), cached=True, measured=measured) == 1
