"""Runs that train for as long as full fine-tuning: each scenario gets as many epochs as fit into its training time."""

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
"""Accepted difference between the training times of a run and of full fine-tuning, as a share of the latter."""

ATTEMPTS = 4
"""Maximum number of trainings of a run; the last one is accepted whatever time it takes."""

GIVE_UP = 1.25
"""Training time at which an attempt is stopped, as a multiple of the available time; the last attempt is not."""


class Train(Protocol):
    """Trains one scenario from one seed with the given settings, for at most `stop_after` seconds of training."""

    def __call__(self, settings: StudySettings, /, *, stop_after: float) -> RunResult | FailedRun: ...


def full_fine_tuning_first(policies: Sequence[Policy], stack: BlockStack) -> tuple[Policy, ...]:
    """Return `policies` with those that freeze nothing first, and `Nothing()` if there is none.

    The other runs take their time from the first one.
    """
    full = [policy for policy in policies if is_full_fine_tuning(policy, stack)]
    return (*(full or [Nothing()]), *(policy for policy in policies if policy not in full))


def predicted_epochs(stack: BlockStack, mask: FreezeMask, shape: StepShape, epochs: float, *, cache: bool) -> float:
    """Return how many epochs under `mask` take as long as `epochs` of full fine-tuning, by the cost model.

    Args:
        stack: The units of the model.
        mask: What is frozen.
        shape: The shape of a training step.
        epochs: Epochs of full fine-tuning.
        cache: Whether a prefix cache skips the frozen prefix from the second epoch on.
    """
    frozen = step_ratio(stack, mask, shape)
    if not cache or epochs <= frozen:
        return epochs / frozen
    return 1 + (epochs - frozen) / step_ratio(stack, mask, shape, cached=True)


def run_for_equal_time(
    train: Train,
    settings: StudySettings,
    policy: Policy,
    stack: BlockStack,
    shape: StepShape,
    folder: StudyFolder,
    reference: RunResult | FailedRun,
) -> RunResult | FailedRun:
    """Run `policy` for the training time of full fine-tuning.

    Args:
        train: Trains `policy` from the seed of `reference`.
        settings: The settings, with the epochs of full fine-tuning.
        policy: The policy.
        stack: The units of the model.
        shape: The shape of a training step.
        folder: The study; runs of `policy` from other seeds suggest the number of epochs.
        reference: The run of full fine-tuning.

    Returns:
        The run, which has failed if `reference` has.
    """
    if isinstance(reference, FailedRun):
        error = f"There is no time to match, because {reference.scenario} failed: {reference.error}"
        return dataclasses.replace(reference, scenario=str(policy), error=error)
    predicted = predicted_epochs(stack, policy.initial_mask(stack), shape, settings.epochs, cache=settings.cache)
    matched = [run.matched for run in folder.runs() if isinstance(run, RunResult) and run.scenario == str(policy)]
    first = next((found.epochs for found in matched if found), None)
    return match_training_time(train, settings, seconds=reference.train_seconds, predicted=predicted, first=first)


def match_training_time(
    train: Train,
    settings: StudySettings,
    *,
    seconds: float,
    predicted: float,
    first: float | None = None,
) -> RunResult | FailedRun:
    """Train with different numbers of epochs until the training time is `seconds`, within `TOLERANCE`.

    After each attempt the number of epochs is corrected by the measured time. A policy that freezes more during the
    run costs less than predicted, so it takes at least two attempts. A run that its policy ends early cannot use more
    epochs and is accepted.

    Args:
        train: Trains one scenario; the learning-rate schedule spans the epochs of the settings.
        settings: The settings, of which the epochs vary.
        seconds: The training time to match.
        predicted: The predicted number of epochs.
        first: The epochs of the first attempt, `predicted` if None.
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
        ended_early = ratio < 1 and run.epochs < 0.99 * epochs
        if last or ended_early or abs(ratio - 1) <= TOLERANCE:
            matched = Matched(run.epochs, predicted_epochs=predicted, reference_seconds=seconds, attempts=attempt)
            return dataclasses.replace(run, settings=settings.to_json(), matched=matched)
        epochs = run.epochs / ratio
