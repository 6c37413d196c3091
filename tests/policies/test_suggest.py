"""Sampling a policy for a search, and recognizing full fine-tuning."""

import pytest
from policies.test_conformance import stack_of

from adaptivefreeze import BottomUp, parse_policy
from adaptivefreeze.policies import is_full_fine_tuning, registered_policies

SAMPLED = ["bottom-up", "top-down", "autofreeze", "validation", "linear", "gradual-unfreezing", "side"]


class Trial:
    """Suggests the lowest or the highest value of each range."""

    def __init__(self, high):
        self.high, self.names = high, []

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.names.append(name)
        return high if self.high else low

    suggest_float = suggest_int

    def suggest_categorical(self, name, choices):
        self.names.append(name)
        return choices[-1 if self.high else 0]


def test_these_policies_are_sampled():
    assert sorted(cls.name for cls in registered_policies() if cls.suggest(Trial(True), 6)) == sorted(SAMPLED)


@pytest.mark.parametrize("cls", [cls for cls in registered_policies() if cls.name in SAMPLED], ids=lambda cls: cls.name)
def test_both_ends_of_each_range_are_valid(cls):
    for high in (False, True):
        trial = Trial(high)
        policy = cls.suggest(trial, 6)
        assert parse_policy(str(policy)) == policy
        policy.initial_mask(stack_of(7))
        assert all(name.startswith(cls.name) or name in ("depth", "embeddings") for name in trial.names)


@pytest.mark.parametrize("cls", [cls for cls in registered_policies() if cls.name in ("bottom-up", "top-down")])
def test_depth_0_has_one_spelling(cls):
    assert cls.suggest(Trial(False), 6) == BottomUp(0)


@pytest.mark.parametrize(
    ("spec", "full"),
    [
        *((spec, True) for spec in ("nothing", "bottom-up:0", "bottom-up:0.0", "bottom-up:0.1", "top-down:0")),
        *((spec, True) for spec in ("nothing+floor:0", "bottom-up:2+ceiling:0", "nothing+after:0", "nothing+sieve:0")),
        *((spec, False) for spec in ("bottom-up:1", "modules:attention", "head-only", "interleaved:2")),
        *(
            (spec, False)
            for spec in ("autofreeze", "linear", "nothing+floor:1", "bottom-up:1+after:0.5", "nothing+sieve:0.5")
        ),
    ],
)
def test_full_fine_tuning_is_recognized_by_its_mask(spec, full):
    assert is_full_fine_tuning(parse_policy(spec), stack_of(4)) is full
    assert is_full_fine_tuning(parse_policy(spec), 4) is full
