"""FreezeMask: printed as people read it, joined as sets, the prefix what it says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivefreeze import FreezeMask

masks = st.integers(1, 12).flatmap(
    lambda depth: st.builds(
        FreezeMask,
        st.just(depth),
        embeddings=st.booleans(),
        blocks=st.sets(st.integers(0, depth - 1)),
        head=st.booleans(),
        parts=st.sets(
            st.tuples(st.sampled_from(["embeddings", "block 0", "head"]), st.sampled_from(["attention", "ffn"]))
        ),
    )
)


@pytest.mark.parametrize(
    ("mask", "text", "prefix"),
    [
        (FreezeMask.first(12, 6), "embeddings+0-5 | 6-11 head", 7),
        (FreezeMask(12), "- | embeddings 0-11 head", 0),
        (FreezeMask(12, blocks=range(9, 12)), "9-11 | embeddings 0-8 head", 0),
        (FreezeMask(4, blocks=(0, 2)), "0+2 | embeddings 1 3 head", 0),
        (FreezeMask(2, embeddings=True, blocks=(0, 1), head=True), "embeddings+0-1+head | -", 3),
        (FreezeMask(2, embeddings=True, parts=[("block 1", "attention")]), "embeddings+1.attention | 0-1 head", 1),
    ],
)
def test_printed_form(mask, text, prefix):
    assert str(mask) == text
    assert mask.prefix == prefix


@given(masks)
def test_survives_json(mask):
    assert FreezeMask.from_json(json.loads(json.dumps(mask.to_json()))) == mask
    assert hash(FreezeMask.from_json(mask.to_json())) == hash(mask)


@given(masks)
def test_prefix_counts_leading_wholly_frozen_units(mask):
    names = ["embeddings", *(f"block {i}" for i in range(mask.depth))]
    assert set(names[: mask.prefix]) <= mask.units
    assert mask.prefix == len(names) or names[mask.prefix] not in mask.units


@given(masks, st.data())
def test_joining_covers_both(mask, data):
    other = data.draw(masks.filter(lambda m: m.depth == mask.depth) if mask.depth < 4 else st.just(mask))
    assert (mask | other).covers(mask)
    assert (mask | other).covers(other)
    assert mask | mask == mask


def test_a_whole_unit_includes_its_parts():
    assert not FreezeMask(2, blocks=[1], parts=[("block 1", "attention")]).parts


def test_a_block_outside_is_refused():
    with pytest.raises(ValueError, match=r"blocks \[4\] are outside a model of 4 blocks"):
        FreezeMask(4, blocks=[4])
    with pytest.raises(ValueError, match="cannot be joined"):
        FreezeMask(4) | FreezeMask(5)
