"""Specs: what a person types, both ways, and what is said when it is wrong."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policies.test_conformance import stack_of

from adaptivefreeze import BottomUp, Interleaved, Modules, RequestError, TopDown, parse_policy
from adaptivefreeze.policies import WRAPPERS, registered_policies
from adaptivefreeze.policies.base import arguments_of
from adaptivefreeze.testing import Run, simulate


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


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("geometric:+floor:nan", "depth must be a whole number of blocks .* not nan"),
        ("bottom-up:nan", "not nan"),
        ("bottom-up:" + "9" * 5000, "not inf"),
        ("autofreeze:intervals=inf", "intervals must be a number above 0, not inf"),
        ("validation:threshold=" + "9" * 400, "threshold must be a number of 0 or more"),
        ("nothing" + "+floor:1" * 5000, "has more than 20 wrappers"),
        ("modules:" + "(" * 5000, "is not a regular expression"),
        ("modules:" + "(" * 5000 + ")" * 5000, "is not a regular expression"),
        ("modules:a{99999999999999}", "is not a regular expression"),
        ("nothing" + " +" * 5000, "unknown policy"),
        ("bottom-up:" + "1," * 5000, "is no argument of bottom-up"),
    ],
    ids=lambda text: text[:30],
)
def test_numbers_and_lengths_without_a_meaning_are_refused(spec, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_policy(spec)


def test_a_spec_may_have_twenty_wrappers():
    spec = "autofreeze" + "+floor:1+patience:0" * 10
    assert str(parse_policy(spec)) == spec


NAMES = [cls.name for cls in registered_policies()]
WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["nan", "inf", "-1", "0", "1", "1e308", "1e-308", "9" * 400, "0.5", "none", "true", "(", "[", "*"]),
)


@st.composite
def specs(draw):
    name = draw(st.sampled_from(NAMES))
    fields = [field.name for field in arguments_of(next(c for c in registered_policies() if c.name == name))] or ["k"]
    arguments = draw(st.lists(st.tuples(st.sampled_from(["", *fields]), WORDS), max_size=3))
    wrappers = draw(st.lists(st.tuples(st.sampled_from([w.name for w in WRAPPERS]), WORDS), max_size=2))
    text = ",".join(f"{key}={value}" if key else value for key, value in arguments)
    return f"{name}:{text}" + "".join(f"+{key}:{value}" for key, value in wrappers)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | specs())
@example("runtime-choice:0")
def test_any_text_is_a_policy_or_one_sentence(spec):
    try:
        policy = parse_policy(spec)
        policy.initial_mask(stack_of(4))
    except RequestError:
        return
    points = policy.decision_points(10, 5)
    assert list(filter(points.steps.__contains__, range(10))) is not None
    try:
        list(simulate(policy, stack_of(4), Run(10, 5, 3)))
    except AssertionError as error:  # a metric of any name
        refused = str(error)
    else:
        refused = ""
    assert not refused or re.search("RequestError: (validation|runtime-choice): no evaluation reports", refused)
