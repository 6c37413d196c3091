"""For the same bill: as many epochs for each scenario as full fine-tuning's training seconds pay for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

from ..model.blocks import BlockStack
from ..model.cost import StepShape, step_ratio
from ..model.mask import FreezeMask
from ..policies import Nothing, Policy, is_full_fine_tuning
from .folder import StudyFolder
from .result import FailedRun, Matched, RunResult
from .settings import StudySettings

TOLERANCE = 0.05
"""How far a run's training seconds may lie from full fine-tuning's before it is trained anew with other epochs."""

ATTEMPTS = 4
"""How often at most: what the last one took is what the result says."""

GIVE_UP = 1.25
"""The share of the time it may take at which an attempt is given up, unless it is the last."""


class Train(Protocol):
    """Trains one scenario from one seed as the settings say, and stops after so many seconds of training."""

    def __call__(self, settings: StudySettings, /, *, stop_after: float) -> RunResult | FailedRun: ...


def with_reference(policies: Sequence[Policy], stack: BlockStack) -> tuple[Policy, ...]:
    """`policies` with full fine-tuning first, added if it is missing, since the others are to take its time."""
    full = [policy for policy in policies if is_full_fine_tuning(policy, stack)]
    return (*(full or [Nothing()]), *(policy for policy in policies if policy not in full))


def predicted_epochs(stack: BlockStack, mask: FreezeMask, shape: StepShape, epochs: float, *, cache: bool) -> float:
    """How many epochs under `mask` cost as much as `epochs` of full fine-tuning, by the cost model.

    With a `cache` the first epoch runs the whole frozen prefix and each further one skips it.
    """
    frozen = step_ratio(stack, mask, shape)
    if not cache or epochs <= frozen:
        return epochs / frozen
    return 1 + (epochs - frozen) / step_ratio(stack, mask, shape, cached=True)


def run_matched(
    train: Train,
    settings: StudySettings,
    policy: Policy,
    seed: int,
    stack: BlockStack,
    shape: StepShape,
    folder: StudyFolder,
    reference: RunResult | FailedRun,
) -> RunResult | FailedRun:
    """The run of `policy` that takes as long as `reference`, full fine-tuning from the same seed; failed if that is."""
    if isinstance(reference, FailedRun):
        error = f"There is no time to match, because {reference.scenario} failed: {reference.error}"
        return dataclasses.replace(reference, scenario=str(policy), error=error)
    predicted = predicted_epochs(stack, policy.initial_mask(stack), shape, settings.epochs, cache=settings.cache)
    matched = [run.matched for run in folder.runs() if isinstance(run, RunResult) and run.scenario == str(policy)]
    first = next((found.epochs for found in matched if found), None)
    return match_time(train, settings, seconds=reference.train_seconds, predicted=predicted, first=first)


def match_time(
    train: Train,
    settings: StudySettings,
    *,
    seconds: float,
    predicted: float,
    first: float | None = None,
) -> RunResult | FailedRun:
    """The run whose training takes `seconds`, within `TOLERANCE`, found by training it.

    `train` runs the scenario for the epochs of the settings that it is given, the learning-rate schedule stretched to
    them. The first attempt takes `first` epochs (those another seed ended with) or else the `predicted` ones; each
    further one what the clock of the one before says. A policy that freezes as it goes costs less than it starts with,
    so it takes a second attempt at least. One that ends the run by itself cannot be given more and is left at that.
    """
    epochs = first or predicted
    attempt = 0
    while True:
        attempt += 1
        last = attempt == ATTEMPTS
        chosen = dataclasses.replace(settings, epochs=epochs)
        run = train(chosen, stop_after=math.inf if last else GIVE_UP * seconds)
        if isinstance(run, FailedRun):
            return dataclasses.replace(run, settings=settings.to_json())
        ratio = run.train_seconds / seconds
        ended_itself = ratio < 1 and run.epochs < 0.99 * epochs
        if last or ended_itself or abs(ratio - 1) <= TOLERANCE:
            matched = Matched(run.epochs, predicted_epochs=predicted, reference_seconds=seconds, attempts=attempt)
            return dataclasses.replace(run, settings=settings.to_json(), matched=matched)
        epochs = run.epochs / ratio
