"""What was frozen when, as strips."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results import made

from adaptivefreeze import FreezeMask
from adaptivefreeze.report.plot import svg
from adaptivefreeze.report.summary import Summary
from adaptivefreeze.report.timelines import draw, frozen_units, strips

CHANGING = (
    {"step": 0, "mask": "- | embeddings 0-3 head", "reason": "start"},
    {"step": 5, "mask": "embeddings+0-1 | 2-3 head", "reason": "holds"},
    {"step": 10, "mask": "embeddings+0 | 1-3 head", "reason": "dropped"},
    {"step": 12, "mask": "embeddings+0-1 | 2-3 head", "reason": "holds"},
)


@given(
    depth=st.shared(st.integers(1, 14), key="depth"),
    blocks=st.shared(st.integers(1, 14), key="depth").flatmap(lambda d: st.sets(st.integers(0, d - 1))),
    embeddings=st.booleans(),
    head=st.booleans(),
)
def test_a_mask_is_read_as_it_is_written(depth, blocks, embeddings, head):
    mask = FreezeMask(depth, embeddings=embeddings, blocks=blocks, head=head, parts=[("block 0", "a b|c + 7 | 9")])
    expected = {i + 1 for i in blocks} | {0 for _ in range(embeddings)} | {depth + 1 for _ in range(head)}
    assert frozen_units(str(mask), depth) == expected


def test_a_unit_is_drawn_for_as_long_as_it_is_frozen():
    (strip,) = strips(Summary.of([made("validation", timeline=CHANGING), made("bottom-up:2")]))
    assert (strip.scenario, strip.steps, strip.depth) == ("validation", 20, 4)
    assert strip.spans == ((0, 5, 20), (1, 5, 20), (2, 5, 10), (2, 12, 20))


def test_one_seed_of_a_scenario_is_drawn():
    summary = Summary.of([made("validation", seed, timeline=CHANGING) for seed in (2, 1)])
    assert [strip.seed for strip in strips(summary)] == [1]


@pytest.mark.parametrize("count", [1, 3])
def test_every_strip_is_in_the_drawing(count):
    runs = [made(f"autofreeze:percentile={50 + i}", timeline=CHANGING) for i in range(count)]
    drawn = draw(strips(Summary.of(runs)))
    assert len(drawn.axes) == count
    assert all(len(axes.collections) == 4 for axes in drawn.axes)
    assert "autofreeze:percentile=50, seed 0" in svg(drawn)
