"""A training run without a model: signals that are a pure function of (seed, step), and a policy that is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from adaptivefreeze import FreezeMask, Policy, parse_policy
from adaptivefreeze.policies import AdaptivePolicy, Decision, Norms, Signals, StepCosts
from adaptivefreeze.trainer.schedule_pace import SchedulePace

EXAMPLES = 4


def signals_at(
    stack, seed: int, step: int, mask: FreezeMask, total: int, epoch: float, *, evaluated: bool, ahead: float = 0.0
) -> Signals:
    """Every signal that there is; frozen units have no gradient."""
    rng = random.Random(f"{seed}/{step}")
    units = [unit.name for unit in stack.units]
    frozen = stack.frozen(mask)
    norms = {name: Norms(rng.uniform(0.1, 2), rng.uniform(0.1, 2)) for name in units}
    numbers = {name: rng.uniform(-0.1, 1) for name in units}
    changes = {p.name: rng.random() for u in stack.units for p in u.parameters}
    return Signals(
        step=step,
        total_steps=total,
        steps_per_epoch=epoch,
        epoch=step / epoch,
        mask=mask,
        learning_rate=1e-3 * (1 - step / total),
        gradients={name: Norms(0, 0) if name in mask.units else value for name, value in norms.items()},
        gradient_changes={name: value for name, value in changes.items() if name not in frozen},
        weights=norms,
        weight_changes=norms,
        weight_samples={name: [rng.gauss(0, 1) for _ in range(EXAMPLES)] for name in units},
        importance={name: value for name, value in numbers.items() if name not in mask.units},
        similarities={
            name: [[rng.random() for _ in range(EXAMPLES)] for _ in range(EXAMPLES)]
            for name in units[1:-1]
            if name not in mask.units
        },
        metrics={"eval_loss": rng.random(), "eval_macro_f1": rng.random()} if evaluated else None,
        costs=StepCosts(
            run=tuple(1 - 0.6 * k / stack.depth for k in range(stack.depth + 1)),
            skipped=tuple(1 - 0.95 * k / stack.depth for k in range(stack.depth + 1)),
            cached=True,
            examples_pass=epoch,
        ),
        ahead=ahead,
        stack=stack,
    )


def simulate(
    policy: Policy, stack, *, total: int, epoch: float, seed: int, evaluate: int = 7, cut: int | None = None
) -> Iterator[tuple[int, FreezeMask, Decision]]:
    """Yield (step, mask before, decision) of each decision; at step `cut` the state moves to a new policy as JSON."""
    policy.reset()
    mask = policy.initial_mask(stack)
    moments, pace = policy.decision_points(total, epoch), SchedulePace()
    for step in range(1, total + 1):
        ended = pace.advance(None, step, total)
        asked = [False] * (step in moments.steps) + [True] * (moments.evaluations and step % evaluate == 0)
        for evaluated in asked:
            assert isinstance(policy, AdaptivePolicy)
            signals = signals_at(stack, seed, step, mask, total, epoch, evaluated=evaluated, ahead=pace.ahead)
            decision = policy.update(signals)
            if decision is not None:
                yield step, mask, decision
                mask = decision.mask
                if decision.pace is not None:
                    pace.set_rate(decision.pace)
                if decision.stop:
                    return
        if ended:
            return
        if step == cut:
            state = json.loads(json.dumps(policy.state_dict()))
            mask = FreezeMask.from_json(json.loads(json.dumps(mask.to_json())))
            policy = parse_policy(str(policy))
            policy.reset()
            policy.load_state_dict(state)
            moments, pace = (
                policy.decision_points(total, epoch),
                SchedulePace(**json.loads(json.dumps(pace.state_dict()))),
            )
