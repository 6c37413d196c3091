"""Space: what can be tried, as trials of an Optuna study show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import Trial

from ..policies import (
    AutoFreeze,
    BottomUp,
    GradualUnfreezing,
    LinearSchedule,
    Policy,
    TopDown,
    ValidationDriven,
)
from .objective import Candidate
from .options import DIRECTIONS
from .result import DEPTH, SAMPLE
from .trials import Order
from .units import Unit

STATIC = "static"
POLICIES = (STATIC, AutoFreeze.name, ValidationDriven.name, LinearSchedule.name, GradualUnfreezing.name)
"""The policies of a sampled search: those with a depth, and adaptive ones with parameters of their own."""

RATE_FACTOR = 4.0
"""Learning rates are sampled from a quarter to four times the one of the settings."""


def depth_order(depth: int, direction: str, blocks: int, units: Sequence[Unit]) -> Order:
    """The trial of one depth in a model of `blocks` blocks."""
    space = {"depth": IntDistribution(0, blocks), "direction": CategoricalDistribution(DIRECTIONS)}
    params: dict[str, Any] = {"depth": depth, "direction": direction}
    return Order(Candidate(str(static(direction, depth))), units, DEPTH, params, space)


def static(direction: str, depth: int, embeddings: bool | None = None) -> Policy:
    """The policy that freezes `depth` blocks from that end; without blocks nothing is frozen, from either."""
    if depth == 0:
        return BottomUp(0)
    if direction == "bottom-up":
        return BottomUp(depth, embeddings=embeddings is not False)
    return TopDown(depth, embeddings=embeddings is True)


def reference_order(blocks: int, units: Sequence[Unit]) -> Order:
    """The trial with which a sampled search begins: full fine-tuning with the settings as they are."""
    return Order(Candidate(str(static("bottom-up", 0))), units, SAMPLE)


def sample(trial: Trial, blocks: int, rate: float, units: Sequence[Unit]) -> Order:
    """What the study's sampler makes of depth × direction × embeddings × policy and its parameters × learning rate."""
    kind = trial.suggest_categorical("policy", POLICIES)
    policy: Policy
    if kind == STATIC:
        direction = trial.suggest_categorical("direction", DIRECTIONS)
        depth = trial.suggest_int("depth", 0, blocks)
        policy = static(direction, depth, trial.suggest_categorical("embeddings", (True, False)))
    elif kind == AutoFreeze.name:
        policy = AutoFreeze(percentile=trial.suggest_int("autofreeze percentile", 25, 75, step=5))
    elif kind == ValidationDriven.name:
        policy = ValidationDriven(patience=trial.suggest_int("validation patience", 0, 2))
    elif kind == LinearSchedule.name:
        start = trial.suggest_float("linear start_at", 0.0, 0.5, step=0.1)
        policy = LinearSchedule(
            start_at=round(start, 1), level=round(trial.suggest_float("linear level", 0.2, 1.0, step=0.2), 1)
        )
    else:
        policy = GradualUnfreezing(every=round(trial.suggest_float("gradual-unfreezing every", 0.2, 1.0, step=0.2), 1))
    found = trial.suggest_float("learning_rate", rate / RATE_FACTOR, rate * RATE_FACTOR, log=True)
    return Order(Candidate(str(policy), float(f"{found:.2g}")), units, SAMPLE)
