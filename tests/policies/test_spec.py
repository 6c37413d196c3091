"""Specs: what a person types, both ways, and what is said when it is wrong."""

import pytest
from policies.test_conformance import stack_of

from adaptivefreeze import BottomUp, Interleaved, Modules, RequestError, TopDown, parse_policy


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("bottom-up:6", BottomUp(6)),
        ("bottom-up:k=6", BottomUp(6)),
        ("bottom-up:0.5", BottomUp(0.5)),
        ("bottom-up:6,embeddings=false", BottomUp(6, embeddings=False)),
        ("top-down:3,embeddings=True", TopDown(3, embeddings=True)),
        ("interleaved:2,first=1", Interleaved(2, first=1)),
        (r"modules:layer\.[0-3]\.,x=y", Modules(r"layer\.[0-3]\.,x=y")),
    ],
)
def test_specs_read_as_people_mean_them(spec, policy):
    assert parse_policy(spec) == policy
    assert parse_policy(str(policy)) == policy
    assert parse_policy(policy) is policy


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("bottomup:3", "unknown policy 'bottomup'; the known ones are nothing, bottom-up.*Did you mean bottom-up?"),
        ("bottom-up", "bottom-up needs k, as in bottom-up:3"),
        ("bottom-up:-1", "depth must be a whole number of blocks"),
        ("bottom-up:1.5", "a fraction from 0.0 to 1.0, not 1.5"),
        ("bottom-up:three", "'three' is neither a number nor true or false"),
        ("bottom-up:3,embedding=false", "bottom-up has no argument 'embedding'; it takes k, embeddings"),
        ("bottom-up:3,4", "'4' is no argument of bottom-up"),
        ("nothing:3", "'3' is no argument of nothing"),
        ("interleaved:0", "the distance between frozen blocks, 1 or more, not 0"),
        ("modules:(", "is not a regular expression"),
        ("modules", "modules needs pattern, as in modules:attention"),
    ],
)
def test_a_wrong_spec_is_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        parse_policy(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("bottom-up:5", "depth 5 is out of range, this model has 4 blocks; give 0 to 4"),
        ("top-down:5", "depth 5 is out of range"),
        ("interleaved:2,first=4", "block 4 is out of range"),
        ("modules:nowhere", "no parameter's name matches 'nowhere'; they look like"),
    ],
)
def test_a_policy_that_does_not_fit_the_model_is_one_sentence(spec, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_policy(spec).initial_mask(stack_of(4))


@pytest.mark.parametrize(
    ("fraction", "blocks", "k"), [(0.25, 6, 2), (0.5, 6, 3), (0.75, 6, 5), (0.25, 12, 3), (0.5, 7, 4)]
)
def test_a_fraction_of_the_depth_is_rounded_half_up(fraction, blocks, k):
    assert BottomUp(fraction).initial_mask(stack_of(blocks)) == BottomUp(k).initial_mask(stack_of(blocks))


def test_a_module_pattern_that_fills_a_unit_freezes_it_whole():
    mask = Modules(r"embeddings|layer\.0\.").initial_mask(stack_of(4))
    assert mask == BottomUp(1).initial_mask(stack_of(4))
    assert str(Modules("attention").initial_mask(stack_of(2))) == "0.attention+1.attention | embeddings 0-1 head"
