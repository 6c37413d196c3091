"""One suite that every policy passes because it is registered."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.settings import SETTINGS, WRAPPED

from adaptivefreeze import FreezeMask, parse_policy
from adaptivefreeze.policies import WRAPPERS, AdaptivePolicy, Policy, registered_policies
from adaptivefreeze.policies.wrappers import Wrapper
from adaptivefreeze.testing import METRICS, Run, check_policy, simulate
from adaptivefreeze.testing import example_stack as stack_of

DEPTHS = (2, 4, 7)
ROWS = [*(policy for cls in registered_policies() for policy in SETTINGS.get(cls, [])), *WRAPPED]
ADAPTIVE = [policy for policy in ROWS if isinstance(policy, AdaptivePolicy)]


def test_every_registered_policy_has_a_row_and_every_row_is_registered():
    assert set(SETTINGS) == set(registered_policies())
    assert all(isinstance(policy, cls) for cls, row in SETTINGS.items() for policy in row)
    assert len({cls.name for cls in registered_policies()}) == len(registered_policies())
    assert {type(policy) for policy in WRAPPED} == set(WRAPPERS)


@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_it_passes_the_checks_for_all_policies(policy):
    check_policy(policy, wrappers=not isinstance(policy, Wrapper))


@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_spec_begins_with_its_name(policy):
    assert re.match(rf"{policy.name}(:|$)|.*\+{policy.name}:", str(policy))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_first_mask_leaves_the_head_trainable(policy, depth):
    assert not policy.initial_mask(stack_of(depth)).head


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
    run = Run(total, max(1, total // epochs), evaluate, seed, METRICS)
    for step in simulate(policy, stack_of(depth), run):
        mask = step.decision.mask
        assert 0 < step.step <= total
        assert mask.depth == depth
        assert not mask.head
        assert stack_of(depth).trainable_parameters(mask) > 0
        assert FreezeMask.from_json(json.loads(json.dumps(mask.to_json()))) == mask


@pytest.mark.parametrize("policy", ADAPTIVE, ids=str)
@settings(max_examples=3, deadline=None)
@given(**RUNS)
def test_it_passes_the_checks_in_any_run(policy, depth, seed, total, epochs, evaluate):
    run = Run(total, max(1, total // epochs), evaluate, seed, METRICS)
    check_policy(policy, stacks=[stack_of(depth)], runs=[run], wrappers=False)


@pytest.mark.parametrize("policy", ADAPTIVE, ids=str)
def test_it_has_decision_points_within_the_run(policy):
    for total, epoch in ((1, 1), (7, 3), (300, 100)):
        points = policy.decision_points(total, epoch)
        assert 0 not in points.steps
        assert total not in points.steps, "a decision after the last step changes nothing"
    if not isinstance(policy, Wrapper):  # one around a static policy may have nothing to decide
        assert points.evaluations or any(step in points.steps for step in range(300))


@pytest.mark.parametrize("cls", [*registered_policies(), *WRAPPERS], ids=lambda cls: cls.name)
def test_it_has_a_card(cls):
    cards = (Path(__file__).parents[2] / "adaptivefreeze" / "policies" / "README.md").read_text()
    card = cards.partition(f"\n## `{'+' * (cls in WRAPPERS)}{cls.name}`")[2].partition("\n## ")[0]
    for part in ("Rule", "Source", "Use it", "Not", "Measured"):
        assert f"**{part}" in card, f"the card of {cls.name} lacks its {part}"


def test_an_update_that_is_never_called_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="derive it from AdaptivePolicy"):
        type("Forgotten", (Policy,), {"update": lambda self, signals: None})
