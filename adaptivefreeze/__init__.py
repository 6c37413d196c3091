"""Freeze the blocks of a transformer that have stopped learning, and stop paying for them."""

from typing import TYPE_CHECKING, Any

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
    SmartFRZ,
    TopDown,
    ValidationDriven,
    parse_policy,
)
from .timeline import Timeline

if TYPE_CHECKING:
    from .studies.search import DepthSearch, search_depth

__version__ = "0.1.0"

__all__ = [
    "AutoFreeze",
    "AutoRGN",
    "BlockStack",
    "BottomUp",
    "Budget",
    "DepthSearch",
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
    "SmartFRZ",
    "Timeline",
    "TopDown",
    "Unit",
    "ValidationDriven",
    "find_blocks",
    "freeze",
    "parse_policy",
    "search_depth",
]

_OF_SEARCH = ("DepthSearch", "search_depth")


def __getattr__(name: str) -> Any:
    """What needs more than torch and transformers is imported when it is asked for."""
    if name in _OF_SEARCH:
        from .studies import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
