"""Freeze the blocks of a transformer that have stopped learning, and stop paying for them."""

from typing import TYPE_CHECKING, Any

from .cache import PrefixCache
from .errors import RequestError
from .extras import missing_extra
from .model.blocks import BlockStack, Unit
from .model.discovery import find_blocks
from .model.freezer import Freezer
from .model.mask import FreezeMask
from .model.timeline import Timeline
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
from .trainer.callback import FreezeCallback
from .trainer.loop import freeze

if TYPE_CHECKING:
    from .search import DepthSearch, search_depth

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

_SEARCH = ("DepthSearch", "search_depth")


def __getattr__(name: str) -> Any:
    """Import the names of the `search` extra on first use."""
    if name not in _SEARCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    sentence = missing_extra("search", f"adaptivefreeze.{name}")
    if sentence:
        raise ImportError(sentence)
    from . import search

    return getattr(search, name)
