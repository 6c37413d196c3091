"""The one listing of policies: being in it makes a policy known to specs, to the conformance suite and to `all`."""

from __future__ import annotations

from .autofreeze import AutoFreeze
from .autorgn import AutoRGN
from .base import Policy
from .budget import Budget
from .egeria import Egeria
from .freezeout import FreezeOut
from .grades import GradES
from .random_blocks import LayerOut, Lisa
from .random_prefix import RandomPrefix
from .schedules import GeometricSchedule, GradualUnfreezing, LinearSchedule
from .smartfrz import SmartFRZ
from .static import BottomUp, HeadOnly, Interleaved, Modules, Nothing, TopDown
from .validation import ValidationDriven

POLICIES: tuple[type[Policy], ...] = (
    Nothing,
    BottomUp,
    TopDown,
    Interleaved,
    HeadOnly,
    Modules,
    AutoFreeze,
    ValidationDriven,
    RandomPrefix,
    LinearSchedule,
    GeometricSchedule,
    GradualUnfreezing,
    LayerOut,
    Lisa,
    FreezeOut,
    GradES,
    AutoRGN,
    Egeria,
    SmartFRZ,
    Budget,
)
