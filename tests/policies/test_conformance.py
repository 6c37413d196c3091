"""One suite that every policy passes because it is listed."""

import json
import random
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.settings import SETTINGS, WRAPPED
from policies.simulation import simulate
from training import tiny_bert

from adaptivefreeze import FreezeMask, find_blocks, parse_policy
from adaptivefreeze.policies import WRAPPERS, AdaptivePolicy, Policy, registered_policies
from adaptivefreeze.policies.wrappers import Wrapper
from adaptivefreeze.signals import COSTS, MEASURES

DEPTHS = (2, 4, 7)
ROWS = [*(policy for cls in registered_policies() for policy in SETTINGS.get(cls, [])), *WRAPPED]
ADAPTIVE = [policy for policy in ROWS if isinstance(policy, AdaptivePolicy)]


@cache
def stack_of(depth):
    return find_blocks(tiny_bert(blocks=depth))


def test_every_listed_policy_has_a_row_and_every_row_a_listing():
    assert set(SETTINGS) == set(registered_policies())
    assert all(isinstance(policy, cls) for cls, row in SETTINGS.items() for policy in row)
    assert len({cls.name for cls in registered_policies()}) == len(registered_policies())
    assert {type(policy) for policy in WRAPPED} == set(WRAPPERS)


@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_spec_reads_back(policy):
    assert parse_policy(str(policy)) == policy
    assert str(parse_policy(str(policy))) == str(policy)
    assert re.match(rf"{policy.name}(:|$)|.*\+{policy.name}:", str(policy))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_first_mask_fits_the_model(policy, depth):
    stack = stack_of(depth)
    mask = policy.initial_mask(stack)
    assert isinstance(mask, FreezeMask)
    assert mask.depth == depth
    assert stack.trainable_parameters(mask) > 0
    assert not mask.head
    assert policy.initial_mask(stack) == mask


@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_state_survives_json(policy):
    policy.reset()
    state = policy.state_dict()
    other = parse_policy(str(policy))
    other.reset()
    other.load_state_dict(json.loads(json.dumps(state)))
    assert other.state_dict() == state


RUNS = {
    "depth": st.sampled_from(DEPTHS),
    "seed": st.integers(0, 2**31),
    "total": st.integers(1, 120),
    "epochs": st.integers(1, 6),
    "evaluate": st.integers(1, 30),
}


@pytest.mark.parametrize("policy", ADAPTIVE, ids=str)
@settings(max_examples=15, deadline=None)
@given(**RUNS)
def test_its_masks_are_sound_at_each_decision(policy, depth, seed, total, epochs, evaluate):
    stack = stack_of(depth)
    decisions = list(simulate(policy, stack, total=total, epoch=max(1, total // epochs), seed=seed, evaluate=evaluate))
    for step, before, decision in decisions:
        mask = decision.mask
        assert 0 < step <= total
        assert mask.depth == depth
        assert not mask.head
        assert stack.trainable_parameters(mask) > 0
        assert FreezeMask.from_json(json.loads(json.dumps(mask.to_json()))) == mask
        assert decision.reason.strip() or mask == before, "a change needs a reason"
        assert "\n" not in decision.reason
        for unit, factor in (decision.learning_rates or {}).items():
            assert unit in {u.name for u in stack.units}
            assert 0 <= factor < float("inf")
        assert decision.pace is None or 1 <= decision.pace < float("inf")


@pytest.mark.parametrize("policy", ADAPTIVE, ids=str)
@settings(max_examples=10, deadline=None)
@given(**RUNS, where=st.floats(0, 1))
def test_resumed_from_json_it_decides_the_same(policy, depth, seed, total, epochs, evaluate, where):
    """Which is determinism too: the global generator stands elsewhere in the second run."""
    run = {"total": total, "epoch": max(1, total // epochs), "seed": seed, "evaluate": evaluate}
    random.seed(1)
    whole = list(simulate(policy, stack_of(depth), **run))
    random.seed(2)
    cut = max(1, round(where * total))
    assert list(simulate(parse_policy(str(policy)), stack_of(depth), **run, cut=cut)) == whole


@pytest.mark.parametrize("policy", ADAPTIVE, ids=str)
def test_it_asks_for_what_is_measured_and_for_moments_that_come(policy):
    assert policy.needs <= {*MEASURES, *COSTS}
    for total, epoch in ((1, 1), (7, 3), (300, 100)):
        moments = policy.decision_points(total, epoch)
        assert 0 not in moments.steps
        assert total not in moments.steps, "a decision after the last step changes nothing"
    if not isinstance(policy, Wrapper):  # one around a static policy may have nothing to ask
        assert moments.evaluations or any(step in moments.steps for step in range(300))


@pytest.mark.parametrize("cls", [*registered_policies(), *WRAPPERS], ids=lambda cls: cls.name)
def test_it_has_a_card(cls):
    cards = (Path(__file__).parents[2] / "adaptivefreeze" / "policies" / "README.md").read_text()
    card = cards.partition(f"\n## `{'+' * (cls in WRAPPERS)}{cls.name}`")[2].partition("\n## ")[0]
    for part in ("Rule", "Source", "Use it", "Not", "Measured"):
        assert f"**{part}" in card, f"the card of {cls.name} lacks its {part}"


def test_an_update_that_nobody_would_call_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="derive it from AdaptivePolicy"):
        type("Forgotten", (Policy,), {"update": lambda self, signals: None})
