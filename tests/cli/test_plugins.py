"""Policies of one's own: on the command line, in a comparison and in a Trainer, registered or not."""

import json
import pickle
import sys
from dataclasses import dataclass, field

import pytest
import torch
from cli.test_cli import run, tiny  # noqa: F401  # fixtures
from training import make_trainer, tiny_bert

from adaptivefreeze import FreezeCallback, FreezeMask, Policy, RequestError, find_blocks, freeze
from adaptivefreeze.cli.request import Request
from adaptivefreeze.comparison import StudySettings, compare
from adaptivefreeze.policies import AdaptivePolicy, Decision, DecisionPoints, Floor, registry
from adaptivefreeze.testing import check_policy

SOURCE = """
from dataclasses import dataclass
from adaptivefreeze import FreezeMask
from adaptivefreeze.policies import Policy, register_policy

@register_policy
@dataclass(frozen=True)
class Middle(Policy):
    name = "middle"
    index: int

    def initial_mask(self, stack):
        return FreezeMask(stack.depth, blocks=[self.index])
"""


@dataclass
class Once(AdaptivePolicy):
    """Not registered: freezes one block after `after` steps."""

    after: int = 2
    _done: bool = field(default=False, init=False, repr=False, compare=False)

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints(range(self.after, total_steps))

    def update(self, signals):
        if self._done:
            return None
        self._done = True
        return Decision(FreezeMask.first(signals.mask.depth, 1), "once")

    def state_dict(self):
        return {"done": self._done}

    def load_state_dict(self, state):
        self._done = state["done"]


class Unnamed(Policy):
    """Not registered, no dataclass, no name."""

    def __init__(self, blocks):
        self.blocks = blocks

    def initial_mask(self, stack):
        return FreezeMask.first(stack.depth, self.blocks)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    (tmp_path / "my_policies.py").write_text(SOURCE)
    yield "my_policies"
    sys.modules.pop("my_policies", None)


def test_a_module_of_the_current_folder_gives_policies_to_every_command(run, plugin, tmp_path):  # noqa: F811
    words = ("--plugins", plugin, "--scenarios", "nothing", "middle:1", "--output", "out")
    done = run("compare", *words)
    assert done.exit_code == 0, done.output
    assert "middle:1" in done.stdout
    assert run("report", "out", "--plugins", plugin).exit_code == 0
    done = run("train", "--policy", "middle:0", "--plugins", plugin, "--output", "trained")
    assert done.exit_code == 0, done.output
    timeline = json.loads((tmp_path / "trained" / "result.json").read_text())["timeline"]
    assert timeline[0]["mask"] == "0 | embeddings 1-3 head"


def test_without_the_module_the_policy_is_unknown(run, plugin):  # noqa: F811
    done = run("compare", "--scenarios", "middle:1")
    assert (done.exit_code, "unknown policy 'middle'" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["compare", "report", "search"])
def test_a_broken_plugin_is_one_sentence_and_status_2(run, tmp_path, command):  # noqa: F811
    (tmp_path / "broken.py").write_text("raise ValueError('two\\nlines')")
    done = run(command, *(["out"] if command == "report" else []), "--plugins", "broken")
    assert done.exit_code == 2
    assert done.stderr == "Error: plugin 'broken' cannot be imported (ValueError: two lines).\n"


def test_a_worker_process_loads_the_plugins_before_the_task(plugin):
    request = pickle.loads(pickle.dumps(Request.of({"plugins": [plugin], "dataset": "nowhere"})))
    registry._registered.pop("middle")
    del sys.modules[plugin]
    with pytest.raises(RequestError, match="nowhere"):
        request.load_task()
    assert "middle" in registry._registered


@pytest.mark.parametrize("policy", [Once(), Unnamed(1), Floor(Once(), 1)], ids=str)
def test_an_unregistered_policy_works_everywhere(policy, task, tmp_path):
    check_policy(policy)
    settings = StudySettings(epochs=1, batch_size=8, learning_rate=1e-2, device="cpu")
    done = compare(task, scenarios=["nothing", policy], settings=settings, output=tmp_path)
    assert not done.failures
    assert {one.scenario: one.full_fine_tuning for one in done.results} == {"nothing": True, str(policy): False}
    assert compare(task, scenarios=["nothing", policy], settings=settings, output=tmp_path).ran == 0
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters())
    with freeze(model, policy, optimizer=optimizer, total_steps=4, steps_per_epoch=2):
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    stack = find_blocks(model)
    policy.reset()
    assert frozen == stack.frozen(policy.initial_mask(stack))


def test_two_unregistered_policies_of_one_name_are_refused(task, tmp_path):
    with pytest.raises(RequestError, match="two different scenarios are called 'Unnamed': make Unnamed a dataclass"):
        compare(task, scenarios=[Unnamed(1), Unnamed(2)], settings=StudySettings(device="cpu"), output=tmp_path)


@pytest.mark.parametrize("instance", [False, True], ids=["kept", "restored by Trainer"])
def test_a_run_with_an_unregistered_policy_is_resumed(instance, tmp_path):
    settings = {"max_steps": 6, "save_steps": 3, "save_strategy": "steps"}
    settings["restore_callback_states_from_checkpoint"] = instance
    whole = FreezeCallback(Once(4))
    make_trainer(tiny_bert(), tmp_path / "whole", [whole], **settings).train()
    resumed = FreezeCallback(Once(4))
    trainer = make_trainer(tiny_bert(), tmp_path / "resumed", [resumed], **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.timeline == whole.timeline
    assert [change.step for change in resumed.timeline] == [0, 4]
