"""check_policy accepts policies that keep the contract, and says which part of it the others break."""

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from adaptivefreeze import BottomUp, FreezeMask, Policy
from adaptivefreeze.policies import AdaptivePolicy, Decision, DecisionPoints
from adaptivefreeze.testing import Run, check_policy, example_stack, simulated_signals


@dataclass
class Growing(AdaptivePolicy):
    """One more block at each decision, up to the last but one: as short as an adaptive policy with state can be."""

    every: int = 5
    _calls: int = field(default=0, init=False, repr=False, compare=False)

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints(range(self.every, total_steps, self.every))

    def update(self, signals):
        self._calls += 1
        blocks = min(self._calls, signals.mask.depth - 1)
        return Decision(FreezeMask.first(signals.mask.depth, blocks), f"decision {self._calls}")

    def state_dict(self):
        return {"calls": self._calls}

    def load_state_dict(self, state):
        self._calls = state["calls"]


class WithoutDataclass(Policy):
    def __init__(self, blocks):
        self.blocks = blocks

    def initial_mask(self, stack):
        return FreezeMask.first(stack.depth, self.blocks)


@pytest.mark.parametrize(
    "policy",
    [BottomUp(1), Growing(), WithoutDataclass(2), lambda: Growing(3)],
    ids=["static", "adaptive", "without dataclass", "factory"],
)
def test_good_policies_pass(policy):
    check_policy(policy)


def test_a_policy_that_is_not_registered_has_a_readable_name():
    assert str(Growing()) == "Growing"
    assert str(Growing(3)) == "Growing:every=3"
    assert str(WithoutDataclass(2)) == "WithoutDataclass"


def wrong(base=Growing, **members):
    return dataclass(type("P", (base,), members))()


def starting(mask_of):
    """A policy whose initial mask is `mask_of(depth)`."""
    return wrong(initial_mask=lambda self, stack: mask_of(stack.depth))


def deciding(decision_of):
    """A policy whose decision is `decision_of(mask in force)`."""
    return wrong(update=lambda self, signals: decision_of(signals.mask))


class Static(Policy):
    def initial_mask(self, stack):
        return FreezeMask(stack.depth)


def remember_depth(self, stack):
    self._calls = stack.depth
    return FreezeMask(stack.depth)


def one(mask):
    return FreezeMask.first(mask.depth, 1)


WRONG = {
    "impure": (wrong(initial_mask=remember_depth), "initial_mask of P changes the policy; it must be pure"),
    "depth": (starting(lambda depth: FreezeMask(3)), "initial_mask of P has 3 blocks for a model of 2"),
    "no mask": (starting(lambda depth: "all"), "initial_mask of P must return a FreezeMask, not 'all'"),
    "all frozen": (
        starting(lambda depth: FreezeMask.first(depth, depth) | FreezeMask(depth, head=True)),
        "initial_mask of P leaves nothing to train",
    ),
    "reset": (wrong(reset=lambda self: None), "reset must clear the state of the first one"),
    "state": (wrong(state_dict=lambda self: {"calls": 0}), "decides differently when it is resumed after step"),
    "no JSON": (wrong(state_dict=lambda self: {"calls": {1, 2}}), "state_dict of P is no plain JSON"),
    "needs": (wrong(needs=property(lambda self: {"mood"})), "needs mood, which is not measured; the known signals"),
    "undeclared": (
        wrong(update=lambda self, signals: signals.gradients["head"]),
        "update of P raised TypeError.*only the signals that `needs` names: none",
    ),
    "global seed": (
        deciding(lambda mask: Decision(one(mask), str(random.random()))),
        "must not use global random generators",
    ),
    "no reason": (deciding(lambda mask: Decision(one(mask))), "changes the mask at step 5 without a reason"),
    "lines": (deciding(lambda mask: Decision(mask, "two\nlines")), "a reason of several lines"),
    "factor": (
        deciding(lambda mask: Decision(mask, learning_rates={"block 0": -1})),
        "scales the learning rate of 'block 0' by -1",
    ),
    "unit": (
        deciding(lambda mask: Decision(mask, learning_rates={"neck": 1})),
        "'neck', which is no unit of the model",
    ),
    "pace": (deciding(lambda mask: Decision(mask, pace=0.5)), "sets the pace to 0.5"),
    "no decision": (deciding(lambda mask: mask), "must return a Decision or None, not FreezeMask"),
    "points": (wrong(decision_points=lambda self, total, epoch: [1, 2]), "must return DecisionPoints, not"),
    "static with points": (
        wrong(Static, decision_points=lambda self, total, epoch: DecisionPoints({1})),
        "has decision points, but is no AdaptivePolicy",
    ),
    "str": (wrong(__str__=lambda self: "a\nb"), "must be one line of text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_policies_fail_with_a_sentence(case):
    policy, sentence = WRONG[case]
    with pytest.raises(AssertionError, match=sentence) as caught:
        check_policy(policy)
    assert "\n" not in str(caught.value).replace("\\n", "") or case == "str"


def test_what_is_no_policy_is_refused():
    with pytest.raises(AssertionError, match="is no Policy: derive the class from Policy or AdaptivePolicy"):
        check_policy(lambda: "bottom-up:3")


def test_global_random_generators_are_left_as_they_were():
    example_stack(3)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    check_policy(Growing(), runs=[Run(7)])
    example_stack(5)
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected


def test_simulated_signals_are_a_function_of_run_and_step():
    stack = example_stack(2)
    mask, run = FreezeMask.first(2, 1), Run(10)
    assert simulated_signals(stack, run, 3, mask) == simulated_signals(stack, run, 3, mask)
    assert simulated_signals(stack, run, 3, mask) != simulated_signals(stack, replace(run, seed=1), 3, mask)
    assert set(simulated_signals(stack, run, 3, mask, evaluated=True).metrics) == set(run.metrics)
