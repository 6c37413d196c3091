"""What the schedules freeze when, and wrappers around them."""

import math

import pytest
from policies.test_conformance import stack_of

from adaptivefreeze import (
    BottomUp,
    FreezeMask,
    FreezeOut,
    GeometricSchedule,
    GradualUnfreezing,
    LayerOut,
    LinearSchedule,
    Lisa,
    RandomPrefix,
    RequestError,
    Timeline,
    parse_policy,
)
from adaptivefreeze.testing import Run, simulate


def run(policy, depth=7, total=100, epoch=25, seed=0):
    """Step -> frozen prefix in blocks, at each change."""
    stack = stack_of(depth)
    found = {0: policy.initial_mask(stack).prefix}
    for change in simulate(policy, stack, Run(total, epoch, seed=seed)):
        if change.decision.mask != change.before:
            found[change.step] = change.decision.mask.prefix
    return {step: max(0, prefix - 1) for step, prefix in found.items()}


def test_linear():
    assert run(LinearSchedule(start_at=0.5), depth=4) == {0: 0, 63: 1, 75: 2, 88: 3}
    assert run(LinearSchedule(level=0.5), depth=4) == {0: 0, 50: 1}
    assert run(LinearSchedule(1.0)) == {0: 0}


def test_geometric_is_the_published_row():
    assert [GeometricSchedule(1 / 3).blocks(0, float(e), 12) for e in range(6)] == [0, 4, 7, 9, 10, 11]
    assert run(GeometricSchedule()) == {0: 0, 25: 2, 50: 4, 75: 5}


def test_gradual_unfreezing_thaws_from_the_top_and_the_embeddings_last():
    assert run(GradualUnfreezing(every=0.4, step=2), depth=4) == {0: 4, 10: 2, 20: 0}
    stack = stack_of(4)
    masks = [s.decision.mask for s in simulate(GradualUnfreezing(every=0.4), stack, Run(100, 25))]
    assert str(masks[0]) == "embeddings+0-2 | 3 head"
    assert str(masks[-1]) == "- | embeddings 0-3 head"


def test_layerout_and_lisa_draw_anew():
    stack = stack_of(7)
    for policy, count in ((LayerOut(seed=1), 4), (Lisa(blocks=2, steps=25, seed=1), 4)):
        masks = {policy.at(step, 7, 100, 25) for step in range(100)}
        assert 2 <= len(masks) <= count
        assert all(not mask.embeddings and not mask.head for mask in masks)
        assert policy.at(0, 7, 100, 25) == policy.initial_mask(stack)
    assert all(len(Lisa(2, 5).at(step, 7, 100, 25).blocks) == 5 for step in range(100))
    shares = [len(LayerOut(0.3, every=0.04, seed=9).at(step, 7, 1000, 25).blocks) / 7 for step in range(1000)]
    assert sum(shares) / 1000 == pytest.approx(0.3, abs=0.03)


def test_random_prefix_grows_as_much_as_asked_on_the_mean():
    grown = [RandomPrefix(0.9, seed=seed)._draw(number) for seed in range(50) for number in range(40)]
    assert sum(grown) / len(grown) == pytest.approx(0.9, abs=0.1)
    assert max(run(RandomPrefix(5.0)).values()) == 6, "the last block never freezes"
    assert max(run(RandomPrefix(5.0, deepest=2)).values()) == 2
    assert run(RandomPrefix(0)) == {0: 0}
    assert run(RandomPrefix()) != run(RandomPrefix(seed=1))


def test_the_control_of_a_run_grows_as_it_did():
    timeline = Timeline()
    for step, blocks in ((0, 0), (10, 0), (20, 3), (30, 4), (40, 4)):
        timeline.record(step, FreezeMask.first(7, blocks) if blocks else FreezeMask(7), "")
    assert RandomPrefix.like(timeline, 5, seed=3) == RandomPrefix(4 / 3, intervals=5, deepest=4, seed=3)


def test_freezeout_anneals_and_freezes_from_the_bottom():
    policy, stack = FreezeOut(t0=0.5, cubic=False, scaled=False), stack_of(4)
    assert [policy.end(i, 4) for i in range(4)] == [0.5, 0.625, 0.75, 0.875]
    rates = {s.step: s.decision.learning_rates for s in simulate(policy, stack, Run(100, 25))}
    assert policy.initial_learning_rates(stack)["block 3"] == 1
    assert rates[25]["block 0"] == pytest.approx(0.5)
    assert rates[25]["embeddings"] == rates[25]["block 0"]
    assert rates[49]["block 1"] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.49 / 0.625)))
    assert "block 0" not in rates[50]
    assert "head" not in rates[50]
    assert run(policy, depth=4) == {0: 0, 50: 1, 63: 2, 75: 3, 88: 4}
    assert FreezeOut().end(0, 4) == pytest.approx(0.8**3)
    assert FreezeOut().initial_learning_rates(stack)["block 0"] == pytest.approx(1 / 0.8**3)


def test_wrappers_hold_what_they_say():
    assert run(parse_policy("linear+ceiling:2"), depth=4) == {0: 0, 25: 1, 50: 2}
    assert run(parse_policy("linear+floor:2"), depth=4) == {0: 2, 75: 3}
    assert run(parse_policy("linear+floor:0.25+ceiling:0.5"), depth=4) == {0: 1, 50: 2}
    assert run(parse_policy("bottom-up:3+after:0.2"), depth=4) == {0: 0, 20: 3}
    assert run(parse_policy("gradual-unfreezing+after:0.5"), depth=4) == {0: 0, 50: 4, 51: 2, 75: 1}
    assert run(parse_policy("geometric+patience:4")) == {0: 0, 29: 2, 54: 4, 79: 5}


def test_a_change_that_a_ceiling_prevents_leaves_no_line():
    decisions = [s.decision for s in simulate(parse_policy("linear+ceiling:1"), stack_of(4), Run(100, 25))]
    assert sum(bool(d.reason) for d in decisions) == 1


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("bottom-up:3+after:0.2", "bottom-up:3+after:0.2"),
        ("autofreeze+ceiling:6+after:0.5", "autofreeze+ceiling:6+after:0.5"),
        ("modules:a+b+floor:1", "modules:a+b+floor:1"),
        ("validation:f1,patience=2 + floor:0.5", "validation:metric=f1,patience=2+floor:0.5"),
        ("validation:metric=f1", "validation:metric=f1"),
        ("nothing+sieve:0.5", "nothing+sieve:0.5"),
        ("modules:a,b=c+sieve:value=0.5, blind=True", "modules:a,b=c+sieve:0.5,blind=true"),
        ("bottom-up:2+sieve:0.5,until=1+after:0.2", "bottom-up:2+sieve:0.5,until=1+after:0.2"),
    ],
)
def test_wrapped_specs_read_both_ways(spec, policy):
    assert str(parse_policy(spec)) == policy
    assert parse_policy(policy) == parse_policy(spec)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("autofreeze+ceil:3", r"unknown policy|has no argument|Wrappers follow a policy: \+floor:, \+ceiling:"),
        ("bottom-up:2+ceiling:-1", "ceiling: depth must be a whole number of blocks"),
        ("bottom-up:2+after:2", "after: the fraction of the run must be a number from 0 to 1, not 2"),
        (
            "bottom-up:2+patience:0.5",
            "the number of decision points must be a whole number of 0 or more, not 0.5",
        ),
        ("nothing+sieve:0.95", "sieve: the share to leave out must be a number from 0 to 0.9, not 0.95"),
        ("nothing+sieve:0.5,until=2", "sieve: until must be a number from 0 to 1, not 2"),
        ("nothing+sieve:0.5,blind=2", "sieve: blind must be true or false, not 2"),
        (
            "nothing+sieve:0.5,delta=1",
            r"'\+sieve:0.5,delta=1': sieve has no argument 'delta'; it takes value, until, blind",
        ),
        ("nothing+sieve:", "sieve needs value, as in sieve:3"),
        ("nothing+sieve:0.5+floor:1+sieve:0.5", r"sieve: nothing\+sieve:0.5\+floor:1 has a sieve already: give one"),
        ("linear:level=2", "linear: level must be a number from 0 to 1, not 2"),
        ("geometric:alpha=0", "geometric: alpha must be a number above 0 up to 1, not 0"),
        ("gradual-unfreezing:step=0", "step must be a whole number of 1 or more"),
        ("layerout:1.5", "probability must be a number from 0 to 1, not 1.5"),
        ("lisa:0", "lisa: blocks must be a whole number of 1 or more, not 0"),
        ("freezeout:0", "freezeout: t0 must be a number above 0 up to 1, not 0"),
        ("random-prefix:-1", "random-prefix: growth must be a number of 0 or more, not -1"),
    ],
)
def test_a_wrong_argument_is_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        parse_policy(spec)
    assert "\n" not in str(caught.value)


def test_a_ceiling_out_of_range_is_one_sentence():
    with pytest.raises(RequestError, match="ceiling: depth 5 is out of range, this model has 4 blocks"):
        parse_policy("autofreeze+ceiling:5").initial_mask(stack_of(4))
    assert BottomUp(4).initial_mask(stack_of(4)).prefix == 5
