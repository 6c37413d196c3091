"""Conformance checks for policies, and the simulated training that they run on."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForTokenClassification

from .errors import RequestError
from .model.blocks import BlockStack
from .model.discovery import find_blocks
from .model.mask import FreezeMask
from .policies import (
    AdaptivePolicy,
    After,
    Ceiling,
    Decision,
    DecisionPoints,
    Floor,
    Norms,
    Patience,
    Policy,
    Sieve,
    Signals,
    StepCosts,
    parse_policy,
    registered_policies,
)
from .policies.wrappers import Wrapper
from .signals import COSTS, MEASURES

METRICS = ("eval_loss", "eval_accuracy", "eval_f1", "eval_macro_f1")
"""Names of the metrics that simulated evaluations report, unless others are given."""

_PROBE_EXAMPLES = 4
_WRAPPERS: tuple[tuple[type[Wrapper], float], ...] = (
    *((Floor, 1), (Ceiling, 0.5), (Patience, 1), (After, 0.3), (Sieve, 0.5)),
)
_FIELD_OF = {"block gradients": "gradients", "timed costs": "costs"}
_MEASURED = tuple({_FIELD_OF.get(name, name) for name in (*MEASURES, *COSTS)})


@dataclass(frozen=True)
class Run:
    """A simulated training run.

    Args:
        total_steps: Number of optimizer steps.
        steps_per_epoch: Optimizer steps per epoch.
        evaluate_every: Steps between evaluations.
        seed: Seed of the simulated signals.
        metrics: Names of the metrics that evaluations report.
    """

    total_steps: int = 40
    steps_per_epoch: float = 20
    evaluate_every: int = 7
    seed: int = 0
    metrics: Sequence[str] = METRICS


RUNS = (Run(), Run(1, steps_per_epoch=1), Run(23, steps_per_epoch=7.5, evaluate_every=5, seed=1))
"""The runs that `check_policy` simulates."""


@dataclass(frozen=True)
class Step:
    """A decision in a simulated run: after `step` optimizer steps, with `before` in force."""

    step: int
    before: FreezeMask
    decision: Decision


def check_policy(
    policy: Policy | Callable[[], Policy],
    *,
    stacks: Sequence[BlockStack] = (),
    runs: Sequence[Run] = RUNS,
    wrappers: bool = True,
) -> None:
    """Check that a policy fulfills the contract of `Policy` and `AdaptivePolicy`.

    Every built-in policy passes these checks. No model is trained: signals are random numbers that depend only on the
    run and the step. The checks are:

    - `initial_mask` is pure, has the depth of the model and leaves parameters to train; so does every later mask.
    - `needs` names known signals, and `update` uses no others.
    - A change of the mask has a reason of one line. Learning-rate factors and pace are in range.
    - Decisions depend on arguments and signals alone, not on global random generators.
    - A decision point at which a measured signal or a metric is NaN or infinite changes nothing: later decisions are
      those of a run without it.
    - `state_dict` is plain JSON. A run that is resumed from it makes the same decisions.
    - `reset` clears the state of an earlier run.
    - `parse_policy` reads `str(policy)` back to an equal policy, if the class is registered.
    - Wrappers (`+floor:1` and the others) around the policy pass the same checks.

    Args:
        policy: The policy, or a function that makes a new one on each call.
        stacks: Models to check it on. By default BERT models of 2, 4 and 7 blocks; give your own if the policy
            selects modules by name.
        runs: The runs to simulate.
        wrappers: Also check the wrappers around the policy.

    Raises:
        AssertionError: When a check fails, with a sentence that says which one.

    Example:
        >>> from adaptivefreeze import BottomUp
        >>> check_policy(BottomUp(0.5))
    """
    make = policy if callable(policy) and not isinstance(policy, Policy) else functools.partial(copy.deepcopy, policy)
    stacks = stacks or tuple(example_stack(depth) for depth in (2, 4, 7))
    first = make()
    _check(isinstance(first, Policy), f"{first!r} is no Policy: derive the class from Policy or AdaptivePolicy.")
    _check_str(first)
    _check_needs(first)
    for stack in stacks:
        _check_initial_mask(make(), stack)
        for run in runs:
            _check_run(make, stack, run)
    if not isinstance(first, Wrapper):  # one may count decision points, as `+patience` does
        _check_non_finite(make, stacks[-1], runs[0])
    for wrapper, value in _WRAPPERS if wrappers else ():
        wrapped = functools.partial(_wrap, make, wrapper, value)
        _check_initial_mask(wrapped(), stacks[-1])
        _check_run(wrapped, stacks[-1], runs[0])


def simulate(
    policy: Policy,
    stack: BlockStack,
    run: Run,
    *,
    resume_at: int | None = None,
    make: Callable[[], Policy] | None = None,
    alter: Callable[[Signals], Signals | None] | None = None,
) -> Iterator[Step]:
    """Simulate a training run and yield the decisions of `policy`.

    Args:
        policy: The policy. It is reset first.
        stack: The units of the model.
        run: The run to simulate.
        resume_at: Number of steps after which the run is interrupted: the state goes through JSON into a new policy.
        make: Makes the new policy for `resume_at`.
        alter: Called with the signals of each decision point; returns those that the policy receives instead, or None
            to leave out the decision point.
    """
    policy.reset()
    mask = policy.initial_mask(stack)
    points, pace, ahead = policy.decision_points(run.total_steps, run.steps_per_epoch), 1.0, 0.0
    for step in range(1, run.total_steps + 1):
        ahead = min(ahead + pace - 1, float(run.total_steps - step))
        schedule_ended = ahead > 0 and step + ahead >= run.total_steps
        evaluated = points.evaluations and step % run.evaluate_every == 0
        for after_evaluation in [False] * (step in points.steps) + [True] * evaluated:
            _check(isinstance(policy, AdaptivePolicy), f"{policy} has decision points, but is no AdaptivePolicy.")
            signals = simulated_signals(stack, run, step, mask, evaluated=after_evaluation, ahead=ahead)
            altered = signals if alter is None else alter(signals)
            decision = None if altered is None else _update(policy, altered)
            if decision is not None:
                yield Step(step, mask, decision)
                mask, pace = decision.mask, decision.pace or pace
                if decision.stop:
                    return
        if schedule_ended:
            return
        if step == resume_at and make is not None:
            state = _json(policy, policy.state_dict())
            policy = make()
            policy.reset()
            policy.load_state_dict(state)
            points = policy.decision_points(run.total_steps, run.steps_per_epoch)


def simulated_signals(
    stack: BlockStack, run: Run, step: int, mask: FreezeMask, *, evaluated: bool = False, ahead: float = 0.0
) -> Signals:
    """Return all signals after `step` steps, as a pure function of the arguments. Frozen units have no gradient."""
    rng = random.Random(f"{run.seed}/{step}")
    units = [unit.name for unit in stack.units]
    frozen = stack.frozen(mask)
    norms = {name: Norms(rng.uniform(0.1, 2), rng.uniform(0.1, 2)) for name in units}
    numbers = {name: rng.uniform(-0.1, 1) for name in units}
    changes = {p.name: rng.random() for u in stack.units for p in u.parameters}
    samples = {name: [rng.gauss(0, 1) for _ in range(_PROBE_EXAMPLES)] for name in units}
    similarities = {
        name: [[rng.random() for _ in range(_PROBE_EXAMPLES)] for _ in range(_PROBE_EXAMPLES)]
        for name in units[1:-1]
        if name not in mask.units
    }
    return Signals(
        step=step,
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        epoch=step / run.steps_per_epoch,
        mask=mask,
        learning_rate=1e-3 * (1 - step / run.total_steps),
        gradients={name: Norms(0, 0) if name in mask.units else value for name, value in norms.items()},
        gradient_changes={name: value for name, value in changes.items() if name not in frozen},
        weights=norms,
        weight_changes=norms,
        weight_samples=samples,
        importance={name: value for name, value in numbers.items() if name not in mask.units},
        similarities=similarities,
        metrics={name: rng.random() for name in run.metrics} if evaluated else None,
        costs=StepCosts(
            run=tuple(1 - 0.6 * k / stack.depth for k in range(stack.depth + 1)),
            skipped=tuple(1 - 0.95 * k / stack.depth for k in range(stack.depth + 1)),
            cached=True,
            examples_pass=run.steps_per_epoch,
        ),
        ahead=ahead,
        stack=stack,
    )


@functools.cache
def example_stack(depth: int) -> BlockStack:
    """Return the units of a small BERT model for token classification with `depth` blocks."""
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=depth,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng(devices=[]):
        return find_blocks(BertForTokenClassification(config))


def _check(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def _check_str(policy: Policy) -> None:
    text = str(policy)
    _check(bool(text.strip()) and "\n" not in text, f"str() of {policy!r} must be one line of text, not {text!r}.")
    inner = policy
    while isinstance(inner, Wrapper):
        inner = inner.policy
    if type(inner) not in registered_policies():
        return
    try:
        read = parse_policy(text)
    except RequestError as error:
        raise AssertionError(f"str() of {policy!r} is no spec that can be parsed: {error}") from error
    _check(read == policy, f"The spec {text!r} of {policy!r} is parsed as a different policy: {read!r}.")
    _check(str(read) == text, f"The spec {text!r} is parsed as a policy with another spec: {str(read)!r}.")


def _check_needs(policy: Policy) -> None:
    unknown = sorted(policy.needs - {*MEASURES, *COSTS})
    known = ", ".join((*MEASURES, *COSTS))
    _check(not unknown, f"{policy} needs {', '.join(unknown)}, which is not measured; the known signals are {known}.")


def _check_initial_mask(policy: Policy, stack: BlockStack) -> None:
    policy.reset()
    text, state = str(policy), _json(policy, policy.state_dict())
    mask = policy.initial_mask(stack)
    _check_mask(policy, mask, stack, "initial_mask")
    pure = str(policy) == text and _json(policy, policy.state_dict()) == state
    _check(pure, f"initial_mask of {policy} changes the policy; it must be pure: clear state in reset instead.")
    _check(policy.initial_mask(stack) == mask, f"initial_mask of {policy} returns another mask in a second call.")


def _check_run(make: Callable[[], Policy], stack: BlockStack, run: Run) -> None:
    policy = make()
    points = policy.decision_points(run.total_steps, run.steps_per_epoch)
    right = isinstance(points, DecisionPoints)
    _check(right, f"decision_points of {policy} must return DecisionPoints, not {points!r}.")
    with _global_seeds(1):
        whole = list(simulate(policy, stack, run))
    for step in whole:
        _check_decision(policy, step, stack)
    with _global_seeds(2):
        same = list(simulate(make(), stack, run)) == whole
    _check(same, f"{policy} decides differently for the same signals: it must not use global random generators.")
    again = list(simulate(policy, stack, run)) == whole
    _check(again, f"{policy} decides differently in a second run: reset must clear the state of the first one.")
    for resume_at in sorted({1, run.total_steps // 2, run.total_steps - 1} - {0, run.total_steps}):
        resumed = list(simulate(make(), stack, run, resume_at=resume_at, make=make))
        _check(
            resumed == whole,
            f"{policy} decides differently when it is resumed after step {resume_at} of {run.total_steps}: state_dict "
            "and load_state_dict must pass on all of its state.",
        )


def _check_non_finite(make: Callable[[], Policy], stack: BlockStack, run: Run) -> None:
    if not make().needs - set(COSTS) and not make().decision_points(run.total_steps, run.steps_per_epoch).evaluations:
        return
    points: list[Signals] = []
    list(simulate(make(), stack, run, alter=lambda signals: points.append(signals) or signals))  # type: ignore[func-returns-value]
    for index in sorted({0, len(points) // 2} if points else ()):
        for number in (math.nan, math.inf):
            spoiled = list(simulate(make(), stack, run, alter=_at(index, lambda s: _spoil(s, number))))  # noqa: B023
            for step in spoiled:
                _check_decision(make(), step, stack)
            skipped = list(simulate(make(), stack, run, alter=_at(index, lambda signals: None)))
            kept = [step for step in spoiled if step.step != points[index].step or not _keeps(step)]
            expected = [step for step in skipped if step.step != points[index].step or not _keeps(step)]
            _check(
                kept == expected,
                f"{make()} decides differently after a measurement of {number} at step {points[index].step}: return "
                "`signals.non_finite()` when it is a decision, and ignore a metric that is not finite.",
            )


def _at(index: int, change: Callable[[Signals], Signals | None]) -> Callable[[Signals], Signals | None]:
    """A function that applies `change` to the signals of its call number `index`, and returns others unchanged."""
    calls = itertools.count()
    return lambda signals: change(signals) if next(calls) == index else signals


def _keeps(step: Step) -> bool:
    return step.decision == Decision(step.before, step.decision.reason)


def _spoil(signals: Signals, number: float) -> Signals:
    """Replace one value of each measured signal, and all metrics."""
    changed: dict[str, Any] = {}
    for name in set(_MEASURED) - {"costs"}:
        values = dict(getattr(signals, name))
        if values:
            key = sorted(values)[len(values) // 2]
            changed[name] = {**values, key: _spoiled(values[key], number)}
    if signals.metrics is not None:
        changed["metrics"] = dict.fromkeys(signals.metrics, number)
    return replace(signals, **changed)


def _spoiled(value: Any, number: float) -> Any:
    if isinstance(value, Norms):
        return Norms(number, number)
    return number if isinstance(value, float) else [_spoiled(value[0], number), *value[1:]]


def _check_mask(policy: Policy, mask: object, stack: BlockStack, source: str) -> None:
    if not isinstance(mask, FreezeMask):
        raise AssertionError(f"{source} of {policy} must return a FreezeMask, not {mask!r}.")
    _check(mask.depth == stack.depth, f"{source} of {policy} has {mask.depth} blocks for a model of {stack.depth}.")
    _check(stack.trainable_parameters(mask) > 0, f"{source} of {policy} leaves nothing to train: {mask}.")


def _check_decision(policy: Policy, step: Step, stack: BlockStack) -> None:
    decision, units = step.decision, {unit.name for unit in stack.units}
    _check_mask(policy, decision.mask, stack, "a decision")
    explained = decision.mask == step.before or bool(decision.reason.strip())
    _check(explained, f"{policy} changes the mask at step {step.step} without a reason.")
    _check("\n" not in decision.reason, f"{policy} gives a reason of several lines: {decision.reason!r}.")
    for unit, factor in (decision.learning_rates or {}).items():
        _check(unit in units, f"{policy} scales the learning rate of {unit!r}, which is no unit of the model.")
        _check(0 <= factor < math.inf, f"{policy} scales the learning rate of {unit!r} by {factor}.")
    pace = decision.pace
    _check(pace is None or 1 <= pace < math.inf, f"{policy} sets the pace to {pace}; it must be 1 or more.")


def _update(policy: Any, signals: Signals) -> Decision | None:
    """Call `update` with the signals that the policy needs, and no others."""
    needed = {_FIELD_OF.get(name, name) for name in policy.needs}
    unneeded: dict[str, Any] = {name: None for name in _MEASURED if name not in needed}
    try:
        decision = policy.update(replace(signals, **unneeded))
    except Exception as error:  # whatever a policy raises, it fails the check
        raise AssertionError(
            f"update of {policy} raised {type(error).__name__}: {error} (it receives only the signals that `needs` "
            f"names: {', '.join(sorted(policy.needs)) or 'none'})."
        ) from error
    if decision is not None and not isinstance(decision, Decision):
        raise AssertionError(f"update of {policy} must return a Decision or None, not {decision!r}.")
    return decision


def _json(policy: Policy, state: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copied: dict[str, Any] = json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"state_dict of {policy} is no plain JSON ({error}): {state!r}.") from error
    return copied


@contextmanager
def _global_seeds(seed: int) -> Iterator[None]:
    """Seed the global random generators, and restore them at the end."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _wrap(make: Callable[[], Policy], wrapper: type[Wrapper], value: float) -> Policy:
    return wrapper(make(), value)
