"""Numbers in the README that the code decides."""

import re

from architectures import ARCHITECTURES
from docs.pages import ROOT

from adaptivefreeze.policies import registered_policies

README = (ROOT / "README.md").read_text()


def test_counts():
    assert re.search(rf"\b{len(ARCHITECTURES)} architectures are tested", README)
    assert re.search(rf"\*\*{len(registered_policies())} policies\*\*", README)


def test_every_policy_is_in_the_guide_and_has_a_card():
    guide = (ROOT / "docs" / "policies.md").read_text()
    cards = (ROOT / "adaptivefreeze" / "policies" / "README.md").read_text()
    for policy in registered_policies():
        assert re.search(rf"`{policy.name}[`:]", guide), policy.name
        assert f"## `{policy.name}`" in cards, policy.name


def test_it_fits_on_two_screens():
    assert len(README.splitlines()) <= 90
