"""The one listing of policies: being in it makes a policy known to specs, to the conformance suite and to `all`."""

from __future__ import annotations

from .autofreeze import AutoFreeze
from .base import Policy
from .static import BottomUp, HeadOnly, Interleaved, Modules, Nothing, TopDown

POLICIES: tuple[type[Policy], ...] = (
    Nothing,
    BottomUp,
    TopDown,
    Interleaved,
    HeadOnly,
    Modules,
    AutoFreeze,
)
