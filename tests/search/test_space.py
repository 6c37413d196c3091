"""The options of a search, and which depths it tries."""

import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.search.space import DepthPlan, QuickPlan, SearchOptions, budget

DEPTHS = tuple(range(13))


def cost(depth, blocks=12):
    return 1 - depth / blocks + 0.02


def play(curve, tolerance=0.005, depths=DEPTHS):
    """Follow a quick plan to its end; what it tried, in order."""
    plan, done, order = QuickPlan(depths, tolerance, lambda depth: cost(depth, max(depths))), {}, []
    while missing := [depth for depth in plan.wanted(done) if depth not in done]:
        for depth in missing:
            done[depth] = curve(depth)
            order.append(depth)
    return plan, done, order


CURVES = {
    "falls from the start": lambda k: 0.9 - 0.0004 * k**2,
    "hill at 2": lambda k: 0.9 - 0.002 * (k - 2) ** 2,
    "hill at 5": lambda k: 0.9 - 0.003 * (k - 5) ** 2,
    "hill at 7": lambda k: 0.9 - 0.001 * (k - 7) ** 2,
    "rises to the end": lambda k: 0.5 + 0.03 * k,
    "flat, then a cliff": lambda k: 0.9 - 0.02 * max(0, k - 9) ** 2,
    "flat": lambda k: 0.9,
}


@pytest.mark.parametrize("name", CURVES)
def test_quick_finds_a_hill_to_within_the_tolerance_or_says_what_it_left(name):
    plan, done, order = play(CURVES[name])
    truth = max(map(CURVES[name], DEPTHS))
    missed = truth - max(done.values())
    said = plan.untried(done)
    assert missed <= 0.005 + 1e-12 or "might still win" in said
    assert len(order) == len(set(order)) < len(DEPTHS)
    assert sum(map(cost, order)) <= budget(len(DEPTHS))


def test_quick_begins_with_both_ends_and_goes_from_shallow_to_deep():
    _, _, order = play(CURVES["flat"])
    assert order == [0, 4, 8, 12]  # nothing between can win, if the curve is a hill


def test_quick_never_bounds_a_hill_too_low():
    for curve in CURVES.values():
        plan = QuickPlan(DEPTHS, 0.005, cost)
        done = {depth: curve(depth) for depth in plan.coarse()}
        for depth, bound in plan.bounds(done).items():
            assert bound >= curve(depth) - 1e-9


def test_quick_can_afford_the_neighbour_of_the_best_in_a_shallow_model_too():
    measured = {0: 0.8381, 1: 0.8411, 2: 0.8240, 3: 0.7960, 4: 0.7557, 5: 0.6059, 6: 0.2131}  # CoNLL-2003, MiniLM
    _, _, order = play(measured.__getitem__, depths=tuple(measured))
    assert order == [0, 2, 4, 6, 1]


def test_quick_with_few_depths_tries_them_all():
    plan, done, order = play(CURVES["flat"], depths=(0, 1, 3, 4))
    assert order == [0, 1, 3, 4]
    assert plan.untried(done) is None


def test_quick_waits_for_a_depth_that_failed_and_claims_nothing():
    plan = QuickPlan(DEPTHS, 0.005, cost)
    assert plan.wanted({0: 0.9, 4: 0.9}) == [0, 4, 8, 12]
    assert plan.untried({0: 0.9, 4: 0.9}) is None


def test_exhaustive_wants_everything_from_shallow_to_deep():
    plan = DepthPlan((4, 0, 2))
    assert list(plan.wanted({0: 0.1})) == [0, 2, 4]
    assert plan.untried({}) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workers": 0}, "workers 0"),
        ({"trials": 0}, "trials 0"),
        ({"tolerance": -0.1}, "tolerance -0.1"),
        ({"side": "up"}, "side up is unknown"),
        ({"trials": 3, "quick": True}, "omit quick and depths"),
        ({"pareto": True}, "give trials as well"),
        ({"space": "rates"}, "the space rates is sampled: give trials as well"),
        ({"space": "depths", "trials": 3}, "space depths is unknown: give policies or rates"),
    ],
)
def test_options_that_cannot_be_are_refused(change, words):
    with pytest.raises(RequestError, match=words):
        SearchOptions(**change)
