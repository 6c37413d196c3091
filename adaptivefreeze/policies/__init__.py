"""What decides what is frozen."""

from .base import Policy
from .listing import POLICIES
from .spec import parse_policy
from .static import BottomUp, HeadOnly, Interleaved, Modules, Nothing, TopDown

__all__ = [
    "POLICIES",
    "BottomUp",
    "HeadOnly",
    "Interleaved",
    "Modules",
    "Nothing",
    "Policy",
    "TopDown",
    "parse_policy",
]
