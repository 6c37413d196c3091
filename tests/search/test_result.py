"""What is chosen, the conclusion in sentences, and estimates of scores."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from adaptivefreeze.search.conclusion import conclude, ranges
from adaptivefreeze.search.result import DepthSearch, Outcome, ScoreEstimate, choose, estimates
from adaptivefreeze.search.space import static_policy


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
    replicates = tuple(f"seed {seed}" for seed in range(max(len(outcome.scores) for outcome in found)))
    best, fast = choose(found, tolerance)
    search = DepthSearch("a model", "f1", replicates, tolerance, tuple(found), (), best, fast, (), "study", "memory")
    return " ".join(conclude(search))


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
    assert "1 is told apart from every other with 2 seeds." in said(outcomes({0: [0.5, 0.51], 1: [0.8, 0.81]}))


def test_two_seeds_that_disagree_tell_nothing_apart():
    assert "0 and 1 cannot be told apart with 2 seeds" in said(outcomes({0: [0.5, 0.6], 1: [0.6, 0.9]}))


def test_scores_of_guessing_are_called_so_before_any_depth_is_named():
    found = outcomes({0: [0.098], 1: [0.101]})
    search = DepthSearch("a model", "macro_f1", ("seed 0",), 0.005, tuple(found), (), found[1], found[1], (), "s", "m")
    assert conclude(replace(search, guessing=0.098))[0].startswith("Nothing was learned: the best score is 10.10")
    assert not any("Nothing was learned" in sentence for sentence in conclude(replace(search, guessing=0.05)))


def test_one_seed_is_said_to_give_no_interval():
    assert "With one seed no interval can be given" in said(outcomes({0: [0.5], 1: [0.8]}))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([3], "3"), ([0, 1], "0 and 1"), ([0, 1, 2, 5], "0 to 2 and 5"), ([7, 0, 1, 2, 4], "0 to 2, 4 and 7")],
)
def test_ranges(numbers, words):
    assert ranges(numbers) == words


def test_negated_outcomes_choose_the_lowest_score_and_keep_their_interval():
    found = [outcome.negated() for outcome in outcomes({0: [2.1, 2.0], 1: [1.5, 1.6], 3: [1.57, 1.58]})]
    best, fast = (outcome.negated() for outcome in choose(found, 0.05))
    assert (best.depth, fast.depth) == (1, 3)
    assert best.scores == (1.5, 1.6)
    assert best.estimate.low <= best.mean <= best.estimate.high
    assert best.negated().negated() == best


def test_intervals_hold_the_mean_and_grow_with_the_spread():
    found = estimates({"calm": [0.80, 0.81, 0.82], "wild": [0.6, 0.8, 1.0]}, 3)
    for sure in found.values():
        assert sure.low <= sure.mean <= sure.high
    assert found["wild"].high - found["wild"].low > 5 * (found["calm"].high - found["calm"].low)
    assert found["calm"].sd == pytest.approx(0.01)


def test_a_candidate_better_on_every_unit_is_the_best_for_sure_though_intervals_overlap():
    found = estimates({"a": [0.5, 0.7, 0.9], "b": [0.49, 0.69, 0.89]}, 3)
    assert (found["a"].best, found["b"].best) == (1, 0)
    assert found["b"].high > found["a"].low


def test_the_interval_is_the_t_interval():
    found = estimates({"a": [0.80, 0.82, 0.87]}, 3)["a"]
    low, high = stats.t.interval(0.95, 2, found.mean, stats.sem([0.80, 0.82, 0.87]))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_probability_of_being_better_of_two_is_that_of_the_paired_t_test():
    one, other = [0.80, 0.82, 0.87, 0.81], [0.79, 0.83, 0.84, 0.80]
    p = stats.ttest_rel(one, other, alternative="less").pvalue
    assert estimates({"a": one, "b": other}, 4)["a"].best == pytest.approx(p, abs=0.02)


def test_equals_share_and_probabilities_add_up_to_one():
    found = estimates({"a": [0.5, 0.7], "b": [0.5, 0.7], "c": [0.7, 0.4]}, 2)
    assert found["a"].best == found["b"].best
    assert math.fsum(sure.best for sure in found.values()) == pytest.approx(1)
    assert found["c"].best == pytest.approx(
        stats.ttest_rel([0.7, 0.4], [0.5, 0.7], alternative="less").pvalue, abs=0.02
    )


def test_with_one_unit_there_is_no_interval():
    assert estimates({"a": [0.5]}, 1) == {"a": ScoreEstimate(0.5)}


def test_what_was_given_up_has_a_mean_and_no_interval():
    found = estimates({"a": [0.5, 0.6, 0.7], "b": [0.1, 0.2]}, 3)
    assert (found["b"].low, found["b"].best, found["a"].best) == (None, None, 1)


def test_equal_scores_give_equal_numbers():
    scores = {"a": [0.5, 0.61, 0.7], "b": [0.52, 0.6, 0.66]}
    assert estimates(scores, 3) == estimates(scores, 3)
