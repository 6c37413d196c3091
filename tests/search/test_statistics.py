"""Bootstrap estimates of scores."""

import math

import pytest

from adaptivefreeze.search.statistics import ScoreEstimate, estimates


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
