"""Scenarios: specs and sets become policies."""

import pytest

from adaptivefreeze import BottomUp, RequestError, TopDown
from adaptivefreeze.comparison.scenarios import expand, split_specs
from adaptivefreeze.policies import AdaptivePolicy, is_full_fine_tuning


def names(*specs, depth=12):
    return [str(policy) for policy in expand(specs, depth)]


def test_paper_is_the_ten_of_the_study():
    bottom = [f"bottom-up:{k}" for k in (0, 3, 6, 9, 12)]
    top = ["top-down:0", *(f"top-down:{k},embeddings=true" for k in (3, 6, 9, 12))]
    assert names("paper") == bottom + top


@pytest.mark.parametrize(("depth", "ks"), [(6, [0, 2, 3, 5, 6]), (4, [0, 1, 2, 3, 4]), (2, [0, 1, 2]), (1, [0, 1])])
def test_quarters_are_rounded_half_up_and_named_once(depth, ks):
    assert [p.k for p in expand(["paper"], depth) if isinstance(p, BottomUp)] == ks
    assert [p.k for p in expand(["paper"], depth) if isinstance(p, TopDown)] == ks


def test_depths_are_every_depth():
    assert names("depths", depth=3) == ["bottom-up:0", "bottom-up:1", "bottom-up:2", "bottom-up:3"]


def test_static_has_one_unfrozen_run_and_all_has_every_depth_besides():
    static, everything = names("static"), names("all")
    assert [str(p) for p in expand(["static"], 12) if is_full_fine_tuning(p, 12)] == ["nothing"]
    assert set(static) | {f"bottom-up:{k}" for k in range(1, 13)} <= set(everything)
    assert len(set(everything)) == len(everything)


def test_adaptive_are_those_that_decide_while_they_train_and_need_no_argument():
    found = names("adaptive")
    assert "autofreeze" in found
    assert not set(found) & set(names("static"))
    assert set(found) <= set(names("all"))
    assert all(isinstance(policy, AdaptivePolicy) for policy in expand(["adaptive"], 12))


def test_specs_keep_their_order_and_each_stands_once():
    assert names("head-only", "bottom-up:2,nothing", "bottom-up:2") == ["head-only", "bottom-up:2", "nothing"]


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("paper,depths", ["paper", "depths"]),
        ("top-down:3,embeddings=true,head-only", ["top-down:3,embeddings=true", "head-only"]),
        ("interleaved:2,first=1,embeddings=true, nothing", ["interleaved:2,first=1,embeddings=true", "nothing"]),
        (r"modules:layer\.\d{1,2}\.", [r"modules:layer\.\d{1,2}\."]),
        ("bottom-up:0.5 , ", ["bottom-up:0.5"]),
    ],
)
def test_a_comma_separates_only_before_a_name(text, specs):
    assert split_specs([text]) == specs


def test_an_unknown_name_is_answered_with_the_known_policies_and_sets():
    with pytest.raises(RequestError, match=r"bottomup.*bottom-up.*Sets of scenarios are paper, depths"):
        expand(["bottomup"], 12)


def test_nothing_to_run_is_refused():
    with pytest.raises(RequestError, match="no scenario"):
        expand([" , "], 12)
