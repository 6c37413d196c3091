"""NaN and infinity in signals: the decision point changes nothing, says so, and the next one goes on."""

import math
from dataclasses import dataclass, field, replace

import pytest
from policies.settings import SETTINGS

from adaptivefreeze import AdaptivePolicy, Decision, DecisionPoints, FreezeMask, GradES, RequestError, ValidationDriven
from adaptivefreeze.signals import COSTS
from adaptivefreeze.testing import Run, check_policy, example_stack, simulate, simulated_signals

STACK, RUN = example_stack(4), Run(total_steps=80)
MEASURING = [
    policy
    for row in SETTINGS.values()
    for policy in row
    if policy.needs - set(COSTS) or policy.decision_points(RUN.total_steps, RUN.steps_per_epoch).evaluations
]
SIGNALS = ("gradients", "gradient_changes", "weights", "weight_samples", "importance", "similarities", "metrics")


def spoil(values, number):
    """One value of a signal replaced, all of them if they are metrics."""
    if not isinstance(values, dict):
        return values
    if all(isinstance(key, str) and key.startswith("eval_") for key in values):
        return dict.fromkeys(values, number)
    changed = dict(values)
    for key, value in values.items():
        if isinstance(value, float):
            changed[key] = number
        elif hasattr(value, "l1"):
            changed[key] = replace(value, l1=number, l2=number)
        elif value:
            first = value[0]
            changed[key] = [[number, *first[1:]] if isinstance(first, list) else number, *value[1:]]
        break
    return changed


def run(policy, index, change):
    """The decisions of a simulated run, with the signals of decision point `index` changed; also its step."""
    seen = []

    def alter(signals):
        seen.append(signals.step)
        return change(signals) if len(seen) == index + 1 else signals

    found = list(simulate(policy, STACK, RUN, alter=alter))
    return found, seen[index]


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("index", [0, 2], ids=["first", "middle"])
@pytest.mark.parametrize("policy", MEASURING, ids=str)
def test_one_non_finite_measurement_changes_only_its_decision(policy, index, number):
    def spoiled(signals):
        return replace(signals, **{name: spoil(getattr(signals, name), number) for name in SIGNALS})

    found, at = run(policy, index, spoiled)
    expected, _ = run(policy, index, lambda signals: None)
    said = [step for step in found if step.step == at]
    assert [step.decision for step in said] == [Decision(said[0].before, said[0].decision.reason)]
    assert "no change" in said[0].decision.reason
    assert [step for step in found if step.step != at] == [step for step in expected if step.step != at]


def test_every_policy_that_measures_has_a_row():
    assert {policy.name for policy in MEASURING} == {
        "autofreeze", "validation", "grades", "autorgn", "egeria", "smartfrz", "runtime-choice", "budget"
    }  # fmt: skip


def evaluated(policy, metrics):
    signals = simulated_signals(STACK, RUN, 7, FreezeMask(4), evaluated=True)
    return policy.update(replace(signals, metrics=metrics))


def test_a_metric_that_disappears_changes_nothing():
    policy = ValidationDriven("f1")
    assert evaluated(policy, {"eval_f1": 0.5}).mask == FreezeMask.first(4, 1)
    decision = evaluated(policy, {"eval_loss": 0.1})
    assert decision == Decision(FreezeMask(4), "f1 is not reported: no change")
    again = ValidationDriven("f1")
    again.load_state_dict(policy.state_dict())
    assert evaluated(again, {}) == decision


def test_a_metric_that_never_was_is_an_error():
    with pytest.raises(RequestError, match="no evaluation reports 'f1'; there are loss"):
        evaluated(ValidationDriven("f1"), {"eval_loss": 0.1})


def test_a_metric_that_was_nan_at_first_was_reported():
    policy = ValidationDriven("f1")
    assert evaluated(policy, {"eval_f1": math.nan}).reason == "f1 nan is not finite: no change"
    assert evaluated(policy, {}).reason == "f1 is not reported: no change"


@dataclass
class Poisoned(AdaptivePolicy):
    """Freezes one block when the gradient of the head is below the mean so far, which one NaN spoils for ever."""

    _sum: float = field(default=0.0, init=False, repr=False, compare=False)

    needs = frozenset({"gradients"})

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints(range(1, total_steps, 3))

    def update(self, signals):
        norm = signals.gradients["block 0"].l1
        self._sum += norm
        blocks = 1 if norm < self._sum / 2 else 2
        return Decision(FreezeMask.first(signals.mask.depth, blocks), f"norm {norm}")

    def state_dict(self):
        return {"sum": self._sum}

    def load_state_dict(self, state):
        self._sum = state["sum"]


class Careful(Poisoned):
    def update(self, signals):
        return signals.non_finite() or super().update(signals)


def test_check_policy_finds_a_policy_that_nan_poisons():
    check_policy(Careful())
    with pytest.raises(AssertionError, match="decides differently after a measurement of nan at step 1: return"):
        check_policy(Poisoned())


def test_the_reason_names_the_signals():
    signals = simulated_signals(STACK, RUN, 5, FreezeMask(4))
    assert signals.non_finite() is None
    assert replace(signals, gradient_changes={"a": math.nan}, importance={"head": -math.inf}).non_finite() == Decision(
        FreezeMask(4), "gradient changes and importance not finite: no change"
    )
    assert GradES().update(replace(signals, gradient_changes={"a": math.nan})).reason.startswith("gradient changes not")
