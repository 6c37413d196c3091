"""Timeline: what was frozen when, and why."""

import json

import pytest

from adaptivefreeze import FreezeMask, Timeline

NONE, ONE, TWO = (FreezeMask(4), FreezeMask.first(4, 1), FreezeMask.first(4, 2))


def example():
    timeline = Timeline()
    timeline.record(0, NONE, "start")
    timeline.record(10, ONE, "slow")
    timeline.record(25, TWO, "slower")
    return timeline


def test_the_mask_of_each_step():
    timeline = example()
    assert [timeline.at(step) for step in (0, 9, 10, 24, 25, 99)] == [NONE, NONE, ONE, ONE, TWO, TWO]
    assert timeline.spans(30) == [(NONE, 10), (ONE, 15), (TWO, 5)]
    assert sum(steps for _, steps in timeline.spans(12)) == 12


def test_survives_json():
    timeline = example()
    assert Timeline.from_json(json.loads(json.dumps(timeline.to_json()))) == timeline
    entry = timeline.to_json()[1]
    assert FreezeMask.from_json(entry.pop("frozen")) == ONE
    assert entry == {"step": 10, "mask": "embeddings+0 | 1-3 head", "reason": "slow"}


def test_history_is_not_rewritten():
    timeline = example()
    with pytest.raises(ValueError, match="step 24 lies before the last recorded change at step 25"):
        timeline.record(24, NONE, "late")
    timeline.record(25, ONE, "changed at once")
    assert len(timeline) == 3
    assert timeline[-1].mask == ONE
    with pytest.raises(LookupError, match="nothing was recorded"):
        Timeline().at(0)


def test_it_is_shown_as_a_table():
    assert repr(example()).splitlines() == [
        "from step  frozen | trainable         reason",
        "        0  - | embeddings 0-3 head    start",
        "       10  embeddings+0 | 1-3 head    slow",
        "       25  embeddings+0-1 | 2-3 head  slower",
    ]
    assert repr(Timeline()) == "Timeline()"
