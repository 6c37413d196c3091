"""Freeze transformer blocks during fine-tuning with the Hugging Face Trainer, and skip them."""

from typing import TYPE_CHECKING, Any

from .cache import PrefixCache
from .errors import RequestError
from .extras import missing_extra
from .model.blocks import BlockStack, Unit
from .model.discovery import find_blocks
from .model.freezer import Freezer
from .model.lora import lora_above
from .model.mask import FreezeMask
from .model.slices import Slice
from .model.timeline import Timeline
from .policies import (
    AdaptivePolicy,
    AutoFreeze,
    AutoRGN,
    BlockRates,
    BottomUp,
    Budget,
    Decision,
    DecisionPoints,
    Egeria,
    EmbeddingRows,
    FewDimensions,
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
    RuntimeChoice,
    Semifreddo,
    SideTuning,
    Signals,
    SmartFRZ,
    TopDown,
    ValidationDriven,
    WeightFreezing,
    parse_policy,
    register_policy,
)
from .side import add_side_network, load_delta, remove_side_network, save_delta
from .trainer.callback import FreezeCallback
from .trainer.loop import freeze

if TYPE_CHECKING:
    from .search import DepthSearch, search_depth

__version__ = "0.2.0.dev0"

__all__ = [
    "AdaptivePolicy",
    "AutoFreeze",
    "AutoRGN",
    "BlockRates",
    "BlockStack",
    "BottomUp",
    "Budget",
    "Decision",
    "DecisionPoints",
    "DepthSearch",
    "Egeria",
    "EmbeddingRows",
    "FewDimensions",
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
    "RuntimeChoice",
    "Semifreddo",
    "SideTuning",
    "Signals",
    "Slice",
    "SmartFRZ",
    "Timeline",
    "TopDown",
    "Unit",
    "ValidationDriven",
    "WeightFreezing",
    "add_side_network",
    "find_blocks",
    "freeze",
    "load_delta",
    "lora_above",
    "parse_policy",
    "register_policy",
    "remove_side_network",
    "save_delta",
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
