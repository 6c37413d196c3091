"""Intervals against scipy and by hand, the resolution of a split by simulation, and the scores of guessing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from adaptivefreeze.comparison.statistics import (
    Guessing,
    Interval,
    at_chance,
    ratio_interval,
    standard_error,
    t_interval,
)

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=6).filter(lambda values: np.std(values) > 1e-6)


@given(VALUES)
def test_the_interval_is_that_of_the_t_distribution(values):
    found = t_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval():
    assert t_interval([0.5]) == Interval(0.5)
    assert ratio_interval([2.0]).low is None


def test_a_ratio_and_its_inverse_have_inverse_intervals():
    one, other = ratio_interval([2.0, 2.2, 1.9]), ratio_interval([1 / 2.0, 1 / 2.2, 1 / 1.9])
    assert (one.mean, one.low, one.high) == pytest.approx((1 / other.mean, 1 / other.high, 1 / other.low))
    assert math.isfinite(ratio_interval([1e-9, 1e9]).high)


def test_guessing_scores_as_scikit_learn_says_of_the_most_frequent_label():
    counts = {"O": 80, "B-LOC": 15, "B-PER": 5}
    truth = [label for label, count in counts.items() for _ in range(count)]
    always, guess = ["O"] * 100, Guessing.of(counts)
    assert guess.label == "O"
    assert guess.accuracy == accuracy_score(truth, always)
    assert guess.weighted_f1 == pytest.approx(f1_score(truth, always, average="weighted"))
    # An even guess has the better macro F1: each label's share is 1/3.
    assert guess.macro_f1 == pytest.approx(1 / 3)
    assert Guessing.of({}) is None


def test_the_standard_error_of_macro_f1_is_near_that_of_repeated_draws():
    random = np.random.default_rng(0)
    counts = {"a": 60, "b": 60, "c": 60}
    truth = np.repeat([0, 1, 2], 60)
    scores = []
    for _ in range(400):
        wrong = random.random(180) < 0.2
        scores.append(
            f1_score(truth, np.where(wrong, (truth + random.integers(1, 3, 180)) % 3, truth), average="macro")
        )
    assert standard_error(float(np.mean(scores)), counts) == pytest.approx(np.std(scores), rel=0.2)


def test_rare_classes_make_a_split_coarse():
    assert standard_error(0.8, {"a": 1000, "b": 5}) > 5 * standard_error(0.8, {"a": 1000, "b": 1000})


@pytest.mark.parametrize(
    ("scores", "chance"),
    [
        ({"accuracy": 0.50, "macro_f1": 0.33}, True),  # one class always
        ({"accuracy": 0.51, "macro_f1": 0.51}, True),  # coin flips
        ({"accuracy": 0.80, "macro_f1": 0.80}, False),
        ({"accuracy": 0.50, "macro_f1": 0.70}, False),
    ],
)
def test_scores_at_chance(scores, chance):
    assert at_chance(scores, {"good": 500, "bad": 500}) == chance
    assert not at_chance(scores, {})
