"""Policies: which blocks are frozen when, decided from signals alone."""

from .autofreeze import AutoFreeze
from .autorgn import AutoRGN
from .base import AdaptivePolicy, Policy, Schedule, Trial, is_full_fine_tuning
from .budget import Budget
from .decision import Decision, DecisionPoints, Norms, Signals, StepCosts
from .egeria import Egeria
from .freezeout import FreezeOut
from .grades import GradES
from .random_blocks import LayerOut, Lisa
from .random_prefix import RandomPrefix
from .rates import BlockRates
from .registry import discover, load_plugins, parse_policy, register_policy, registered_policies
from .runtime_choice import RuntimeChoice
from .schedules import GeometricSchedule, GradualUnfreezing, LinearSchedule
from .short_full import ShortFull
from .side import SideTuning
from .slices import EmbeddingRows, FewDimensions, Semifreddo, WeightFreezing
from .smartfrz import SmartFRZ
from .static import BottomUp, HeadOnly, Interleaved, Modules, Nothing, TopDown
from .validation import ValidationDriven
from .wrappers import WRAPPERS, After, Ceiling, Floor, Patience, Sieve

__all__ = [
    "WRAPPERS",
    "AdaptivePolicy",
    "After",
    "AutoFreeze",
    "AutoRGN",
    "BlockRates",
    "BottomUp",
    "Budget",
    "Ceiling",
    "Decision",
    "DecisionPoints",
    "Egeria",
    "EmbeddingRows",
    "FewDimensions",
    "Floor",
    "FreezeOut",
    "GeometricSchedule",
    "GradES",
    "GradualUnfreezing",
    "HeadOnly",
    "Interleaved",
    "LayerOut",
    "LinearSchedule",
    "Lisa",
    "Modules",
    "Norms",
    "Nothing",
    "Patience",
    "Policy",
    "RandomPrefix",
    "RuntimeChoice",
    "Schedule",
    "Semifreddo",
    "ShortFull",
    "SideTuning",
    "Sieve",
    "Signals",
    "SmartFRZ",
    "StepCosts",
    "TopDown",
    "Trial",
    "ValidationDriven",
    "WeightFreezing",
    "is_full_fine_tuning",
    "load_plugins",
    "parse_policy",
    "register_policy",
    "registered_policies",
]

discover(__name__, __path__)
