"""Freeze the blocks of a transformer that have stopped learning, and stop paying for them."""

from .blocks import BlockStack, Unit, find_blocks
from .cache import PrefixCache
from .callback import FreezeCallback
from .errors import RequestError
from .freezer import Freezer, freeze
from .mask import FreezeMask
from .policies import (
    AutoFreeze,
    AutoRGN,
    BottomUp,
    Budget,
    Egeria,
    FreezeOut,
    GeometricSchedule,
    GradES,
    GradualUnfreezing,
    HeadOnly,
    Interleaved,
    LayerOut,
    LinearSchedule,
    Lisa,
    Modules,
    Nothing,
    Policy,
    RandomPrefix,
    TopDown,
    ValidationDriven,
    parse_policy,
)
from .timeline import Timeline

__version__ = "0.1.0"

__all__ = [
    "AutoFreeze",
    "AutoRGN",
    "BlockStack",
    "BottomUp",
    "Budget",
    "Egeria",
    "FreezeCallback",
    "FreezeMask",
    "FreezeOut",
    "Freezer",
    "GeometricSchedule",
    "GradES",
    "GradualUnfreezing",
    "HeadOnly",
    "Interleaved",
    "LayerOut",
    "LinearSchedule",
    "Lisa",
    "Modules",
    "Nothing",
    "Policy",
    "PrefixCache",
    "RandomPrefix",
    "RequestError",
    "Timeline",
    "TopDown",
    "Unit",
    "ValidationDriven",
    "find_blocks",
    "freeze",
    "parse_policy",
]
