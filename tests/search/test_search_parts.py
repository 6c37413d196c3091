"""The parts of a search that train nothing: plans, statistics, folds, words, options."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.search.objective import Replicate, fold_tasks, replicates_of, strata
from adaptivefreeze.search.options import SearchOptions, parse_depths
from adaptivefreeze.search.result import Outcome, choose, conclude, ranges
from adaptivefreeze.search.runner import counted
from adaptivefreeze.search.space import DepthPlan, QuickPlan, budget, static_policy
from adaptivefreeze.search.statistics import ScoreEstimate, estimates

# Plans

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


# Statistics


def test_intervals_hold_the_mean_and_grow_with_the_spread():
    found = estimates({"calm": [0.80, 0.81, 0.82], "wild": [0.6, 0.8, 1.0]}, 3)
    for sure in found.values():
        assert sure.low <= sure.mean <= sure.high
    assert found["wild"].high - found["wild"].low > 5 * (found["calm"].high - found["calm"].low)
    assert found["calm"].sd == pytest.approx(0.01)


def test_a_candidate_better_on_every_unit_is_the_best_for_sure_though_intervals_overlap():
    found = estimates({"a": [0.5, 0.7, 0.9], "b": [0.49, 0.69, 0.89]}, 3)
    assert (found["a"].best, found["b"].best) == (1, 0)
    assert found["a"].overlaps(found["b"])


def test_equals_share_and_probabilities_add_up_to_one():
    found = estimates({"a": [0.5, 0.7], "b": [0.5, 0.7], "c": [0.7, 0.4]}, 2)
    assert found["a"].best == found["b"].best
    assert math.fsum(sure.best for sure in found.values()) == pytest.approx(1)
    # c wins the draws in which its good replicate came twice and loses all others: a quarter of them.
    assert found["c"].best == pytest.approx(0.25, abs=0.02)


def test_with_one_unit_there_is_no_interval():
    assert estimates({"a": [0.5]}, 1) == {"a": ScoreEstimate(0.5)}


def test_what_was_given_up_has_a_mean_and_no_interval():
    found = estimates({"a": [0.5, 0.6, 0.7], "b": [0.1, 0.2]}, 3)
    assert (found["b"].low, found["b"].best, found["a"].best) == (None, None, 1)


def test_equal_scores_give_equal_numbers():
    scores = {"a": [0.5, 0.61, 0.7], "b": [0.52, 0.6, 0.66]}
    assert estimates(scores, 3) == estimates(scores, 3)


# The choice, and what is said of it


def outcomes(scores, seconds=lambda depth: 10 - depth):
    sure = estimates(scores, max(map(len, scores.values())))
    return [
        Outcome(
            str(static_policy("bottom", depth)),
            "depth",
            depth=depth,
            scores=tuple(s),
            estimate=sure[depth],
            seconds=seconds(depth),
            speedup=seconds(0) / seconds(depth),
        )
        for depth, s in scores.items()
    ]


def said(found, tolerance=0.005):
    replicates = max(len(outcome.scores) for outcome in found)
    best, fast = choose(found, tolerance)
    told = counted([Replicate(seed) for seed in range(replicates)])
    return " ".join(conclude(found, best, fast, counted=told, tolerance=tolerance, replicates=replicates))


def test_the_fast_one_is_the_deepest_within_the_tolerance():
    found = outcomes({0: [0.900], 1: [0.904], 2: [0.899], 3: [0.898], 4: [0.850]})
    best, fast = choose(found, 0.005)
    assert (best.depth, fast.depth) == (1, 2)
    assert choose(found, 0.006)[1].depth == 3
    assert choose(found, 0.0)[1].depth == 1


def test_of_equals_the_deeper_is_best():
    assert choose(outcomes({0: [0.9], 3: [0.9]}), 0.0)[0].depth == 3


def test_what_was_given_up_or_failed_is_not_chosen():
    found = outcomes({0: [0.5, 0.5], 1: [0.9]})
    found = [found[0], replace(found[1], pruned=True), Outcome("bottom-up:2", "depth", depth=2, error="no memory")]
    assert [outcome.depth for outcome in choose(found, 0.005)] == [0, 0]
    assert "1 was pruned before the last of 2 seeds" in said(found)
    assert "2 failed and was not compared" in said(found)


def test_depths_that_overlap_are_said_not_to_be_told_apart():
    close = {depth: [0.90 + 0.001 * depth, 0.93, 0.91] for depth in range(5)} | {5: [0.5, 0.52, 0.51]}
    assert "0 to 4 cannot be told apart with 3 seeds; 4 is 1.7× faster than full fine-tuning." in said(outcomes(close))


def test_a_winner_by_far_is_said_to_be_one():
    assert "The interval of 1 overlaps no other with 2 seeds." in said(outcomes({0: [0.5, 0.51], 1: [0.8, 0.81]}))


def test_one_seed_is_said_to_give_no_interval():
    assert "With one seed no interval can be given" in said(outcomes({0: [0.5], 1: [0.8]}))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([3], "3"), ([0, 1], "0 and 1"), ([0, 1, 2, 5], "0 to 2 and 5"), ([7, 0, 1, 2, 4], "0 to 2, 4 and 7")],
)
def test_ranges(numbers, words):
    assert ranges(numbers) == words


# Units and folds


def test_units_are_named_and_counted():
    replicates = replicates_of((0, 7), 3)
    assert len(replicates) == 6
    assert [Replicate.parse(str(replicate)) for replicate in (*replicates, Replicate(4))] == [*replicates, Replicate(4)]
    assert counted(replicates) == "2 seeds × 3 folds"
    assert counted(replicates_of((0,), 3)) == "3 folds"
    assert counted(replicates_of((0, 1), None)) == "2 seeds"


def test_folds_are_disjoint_whole_alike_and_leave_the_test_split_alone(texts):
    tasks = fold_tasks(texts, 4)
    held = [task.validation["input_ids"] for task in tasks]
    assert sorted(row for part in held for row in part) == sorted(texts.train["input_ids"])
    for task in tasks:
        assert len(task.train) + len(task.validation) == len(texts.train)
        assert Counter(task.validation["labels"]) == {0: 3, 1: 3}
        assert task.test is texts.test
    assert len({task.fingerprint for task in (*tasks, texts)}) == 5
    assert [task.fingerprint for task in fold_tasks(texts, 4)] == [task.fingerprint for task in tasks]


def test_sentences_are_split_by_their_entity_classes(task):
    found = strata(task, 3)
    assert set(found) == {"LOC+PER"}
    assert len(found) == task.train_examples


@pytest.mark.parametrize("folds", [1, 25])
def test_folds_that_cannot_be_are_refused(task, folds):
    with pytest.raises(RequestError, match=f"--folds {folds} is not possible"):
        fold_tasks(task, folds)


# Options


def test_depths_as_they_are_typed():
    assert parse_depths(["0-3", "6,9"]) == (0, 1, 2, 3, 6, 9)
    for wrong in ("x", "3-", "-1", "1.5"):
        with pytest.raises(RequestError, match="give whole numbers or ranges"):
            parse_depths([wrong])


def test_options_as_the_command_line_gives_them():
    options = SearchOptions.of(
        {"depths": ["0-2"], "tolerance": 0.3, "baselines": ["none"], "seeds": (1,), "storage": None}
    )
    assert options == SearchOptions(depths=(0, 1, 2), tolerance=0.003, baselines=(), seeds=(1,))
    assert SearchOptions().compared_with == ("paper",)
    assert SearchOptions(quick=True).compared_with == SearchOptions(trials=3).compared_with == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workers": 0}, "--workers 0"),
        ({"trials": 0}, "--trials 0"),
        ({"tolerance": -0.1}, "--tolerance -10"),
        ({"side": "up"}, "--side up is unknown"),
        ({"trials": 3, "quick": True}, "omit --quick and --depths"),
        ({"pareto": True}, "give --trials as well"),
    ],
)
def test_options_that_cannot_be_are_refused(change, words):
    with pytest.raises(RequestError, match=words):
        SearchOptions(**change)
