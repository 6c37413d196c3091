"""One suite that every policy passes because it is listed."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from policies.settings import SETTINGS
from training import tiny_bert

from adaptivefreeze import FreezeMask, find_blocks, parse_policy
from adaptivefreeze.policies import POLICIES

DEPTHS = (2, 4, 7)
ROWS = [policy for cls in POLICIES for policy in SETTINGS[cls]]


@cache
def stack_of(depth):
    return find_blocks(tiny_bert(blocks=depth))


def test_every_listed_policy_has_a_row_and_every_row_a_listing():
    assert set(SETTINGS) == set(POLICIES)
    assert all(isinstance(policy, cls) for cls, row in SETTINGS.items() for policy in row)
    assert len({cls.name for cls in POLICIES}) == len(POLICIES)


@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_spec_reads_back(policy):
    assert parse_policy(str(policy)) == policy
    assert str(parse_policy(str(policy))) == str(policy)
    assert re.match(rf"{policy.name}(:|$)", str(policy))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_first_mask_fits_the_model(policy, depth):
    stack = stack_of(depth)
    mask = policy.start(stack)
    assert isinstance(mask, FreezeMask)
    assert mask.depth == depth
    assert stack.trainable_parameters(mask) > 0
    assert not mask.head
    assert policy.start(stack) == mask


@pytest.mark.parametrize("policy", ROWS, ids=str)
def test_its_state_survives_json(policy):
    policy.start(stack_of(4))
    state = policy.state_dict()
    other = parse_policy(str(policy))
    other.start(stack_of(4))
    other.load_state_dict(json.loads(json.dumps(state)))
    assert other.state_dict() == state


@pytest.mark.parametrize("cls", POLICIES, ids=lambda cls: cls.name)
def test_it_has_a_card(cls):
    cards = (Path(__file__).parents[2] / "adaptivefreeze" / "policies" / "README.md").read_text()
    card = cards.partition(f"\n## `{cls.name}`")[2].partition("\n## ")[0]
    for part in ("Rule", "Source", "Use it", "Not", "Measured"):
        assert f"**{part}" in card, f"the card of {cls.name} lacks its {part}"
