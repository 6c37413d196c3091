"""The options of a search, from Python and from the command line."""

import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.search.options import SearchOptions, parse_depths


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
