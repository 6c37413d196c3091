"""What decides what is frozen."""

from .autofreeze import AutoFreeze
from .base import AdaptivePolicy, Decision, Moments, Norms, Policy, Schedule, Signals, StepCosts
from .listing import POLICIES
from .spec import parse_policy
from .static import BottomUp, HeadOnly, Interleaved, Modules, Nothing, TopDown
from .wrappers import WRAPPERS, After, Ceiling, Floor, Patience

__all__ = [
    "POLICIES",
    "WRAPPERS",
    "AdaptivePolicy",
    "After",
    "AutoFreeze",
    "BottomUp",
    "Ceiling",
    "Decision",
    "Floor",
    "HeadOnly",
    "Interleaved",
    "Modules",
    "Moments",
    "Norms",
    "Nothing",
    "Patience",
    "Policy",
    "Schedule",
    "Signals",
    "StepCosts",
    "TopDown",
    "parse_policy",
]
