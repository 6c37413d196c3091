"""Freeze the blocks of a transformer that have stopped learning, and stop paying for them."""

from .blocks import BlockStack, Unit, find_blocks
from .cache import PrefixCache
from .callback import FreezeCallback
from .errors import RequestError
from .freezer import Freezer, freeze
from .mask import FreezeMask
from .policies import (
    AutoFreeze,
    BottomUp,
    HeadOnly,
    Interleaved,
    Modules,
    Nothing,
    Policy,
    TopDown,
    parse_policy,
)
from .timeline import Timeline

__version__ = "0.1.0"

__all__ = [
    "AutoFreeze",
    "BlockStack",
    "BottomUp",
    "FreezeCallback",
    "FreezeMask",
    "Freezer",
    "HeadOnly",
    "Interleaved",
    "Modules",
    "Nothing",
    "Policy",
    "PrefixCache",
    "RequestError",
    "Timeline",
    "TopDown",
    "Unit",
    "find_blocks",
    "freeze",
    "parse_policy",
]
