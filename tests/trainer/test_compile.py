"""torch_compile=True: equal to eager training while the mask moves, and one new graph a move.

Every policy that moves its mask trains a model of a few operations, which compiles fast. BERT is compiled by the slow
tests.
"""

from itertools import pairwise

import pytest
import torch
from distributed_cases import FullSentences
from policies.settings import SETTINGS
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from training import BLOCKS, make_trainer, moved, tiny_bert, weights
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback

from adaptivefreeze import (
    AutoRGN,
    BottomUp,
    FreezeCallback,
    FreezeMask,
    GradES,
    RequestError,
    RuntimeChoice,
    SmartFRZ,
    parse_policy,
)
from adaptivefreeze.policies import AdaptivePolicy, ShortFull, registered_policies
from adaptivefreeze.trainer import gradient_guard

# Settings other than the first of the conformance table, where that one does not move the mask within 12 steps.
OWN = {
    GradES: GradES(tau=5.0, alpha=0.0, every=2),
    AutoRGN: AutoRGN(intervals=2, freeze=0.9),
    SmartFRZ: SmartFRZ(0.2, intervals=4, window=2, prefix=True),
    RuntimeChoice: RuntimeChoice(price=0.045),
}
ADAPTIVE = [cls for cls in registered_policies() if issubclass(cls, AdaptivePolicy)]
MOVING = [
    OWN.get(cls, SETTINGS[cls][0]) for cls in ADAPTIVE if cls is not ShortFull
]  # it decides on the schedule alone
# A prefix that grows, one that thaws, scattered blocks, and both directions. The slow tests have all policies.
WITH_CACHE = {"autofreeze", "gradual-unfreezing", "lisa", "validation"}
MOVING_CASES = [
    pytest.param(
        policy,
        cache,
        id=f"{policy}-{'cached' if cache else 'uncached'}",
        marks=[pytest.mark.slow] if cache and policy.name not in WITH_CACHE else [],
    )
    for policy in MOVING
    for cache in (False, True)
]
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(8, 8)

    def forward(self, hidden):
        return hidden + torch.tanh(self.dense(hidden))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(64, 8)
        self.layers = nn.ModuleList(Block() for _ in range(BLOCKS))

    def forward(self, input_ids):
        hidden = self.embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class Small(PreTrainedModel):
    """Four blocks of one linear layer each."""

    config_class = PreTrainedConfig

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(PreTrainedConfig(hidden_size=8, num_hidden_layers=BLOCKS))
        self.tower = Tower()
        self.head = nn.Linear(8, 3)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.tower(input_ids))
        if labels is None:
            return {"logits": logits}
        return {"loss": cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


class Graphs(TrainerCallback):
    """Counts the graphs that are compiled by the end of each step."""

    def __init__(self):
        self.total = [0]

    def on_step_end(self, args, state, control, **kwargs):
        self.total.append(counters["stats"]["unique_graphs"])

    def of_step(self, step):
        return self.total[step] - self.total[step - 1]


def train_small(folder, policy, *callbacks, backend=None, cache=False, model=None):
    """Train 12 steps; return the callback, the weights and the number of graphs."""
    torch._dynamo.reset()
    counters.clear()
    freezing, graphs = FreezeCallback(parse_policy(str(policy)), cache=cache), Graphs()
    compiled = {} if backend is None else {"torch_compile": True, "torch_compile_backend": backend}
    trainer = make_trainer(
        model or Small(),
        folder,
        [freezing, graphs, *callbacks],
        train_dataset=FullSentences(),
        num_train_epochs=4,
        per_device_train_batch_size=8,
        eval_strategy="steps",
        eval_steps=3,
        **compiled,
    )
    trainer.compute_metrics = lambda prediction: {"macro_f1": float((prediction.predictions[..., 0] > 0).mean())}
    trainer.train()
    return freezing, weights(trainer.model), graphs


def equal(one, other):
    return all(torch.allclose(value, other[name], atol=1e-4) for name, value in one.items())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("policy", "cache"), MOVING_CASES)
def test_every_policy_that_moves_its_mask(tmp_path, policy, cache, backend):
    """The first two steps compile with and without the hook that checks the order of the blocks."""
    eager, expected, _ = train_small(tmp_path, policy, cache=cache)
    freezing, reached, graphs = train_small(tmp_path, policy, backend=backend, cache=cache)
    changes = freezing.timeline
    moves = {after.step for before, after in pairwise(changes) if after.mask != before.mask}
    assert moves, "choose settings with which the policy moves its mask"
    assert changes.to_json() == eager.timeline.to_json()
    assert equal(expected, reached)
    if cache:  # where it serves, the tower runs uncompiled
        assert freezing.cache.stats.hits == eager.cache.stats.hits
        assert freezing.cache.stats.disabled_reason == eager.cache.stats.disabled_reason
    else:
        assert graphs.total[-1] >= 1 + len(moves - {11, 12}), "each mask has a graph of its own"
    for step in range(3, len(graphs.total)):
        allowed = graphs.total[2] if step - 1 in moves else 0  # hooks that measure split a model into several graphs
        assert graphs.of_step(step) <= allowed, f"step {step}, moves {moves}: {graphs.total}"


class SkipsGuards(TrainerCallback):
    """Lets torch use any graph that it has compiled, whatever `requires_grad` says (pytorch #139476)."""

    def __init__(self, monkeypatch):
        self.compiled = False
        reset = torch._dynamo.reset

        def reset_and_note():
            reset()
            self.compiled = False

        monkeypatch.setattr(torch._dynamo, "reset", reset_and_note)

    def on_step_begin(self, args, state, control, **kwargs):
        torch.compiler.set_stance("default", skip_guard_eval_unsafe=self.compiled)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        torch.compiler.set_stance("default")
        self.compiled = state.global_step > 0  # the first step is compiled with the hooks of the first pass


@pytest.mark.parametrize("policy", ["gradual-unfreezing", "linear"])
def test_no_stale_graph_is_used_even_if_torch_would(tmp_path, monkeypatch, policy):
    _, expected, _ = train_small(tmp_path, policy)
    _, reached, graphs = train_small(tmp_path, policy, SkipsGuards(monkeypatch), backend="aot_eager")
    assert equal(expected, reached)
    assert [graphs.of_step(step) for step in range(3, 13)] == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0]


def test_a_stale_graph_would_be_noticed(tmp_path, monkeypatch):
    """Without the reset after a move, the comparison above fails."""
    _, expected, _ = train_small(tmp_path, "gradual-unfreezing")
    skips = SkipsGuards(monkeypatch)
    note = torch._dynamo.reset
    monkeypatch.setattr(torch._dynamo, "reset", lambda: skips.compiled or note())
    _, reached, _ = train_small(tmp_path, "gradual-unfreezing", skips, backend="aot_eager")
    assert not equal(expected, reached)


def test_the_gradient_guard_in_compiled_training(tmp_path, monkeypatch):
    """A parameter that is never used is legitimate; the second pass over the batch compiles nothing that stays."""
    model = Small()
    model.unused = nn.Linear(8, 8)
    passes = []
    original = gradient_guard.GradientGuard._names_with_gradient
    monkeypatch.setattr(
        gradient_guard.GradientGuard, "_names_with_gradient", lambda *args: passes.append(1) or original(*args)
    )
    _, reached, graphs = train_small(tmp_path, "bottom-up:2", backend="aot_eager", model=model)
    assert passes == [1]
    assert [graphs.of_step(step) for step in range(3, 13)] == [0] * 10
    reference = Small()
    reference.unused = nn.Linear(8, 8)
    _, expected, _ = train_small(tmp_path, "bottom-up:2", model=reference)
    assert all(torch.allclose(v, reached[n], atol=1e-4) for n, v in expected.items() if "unused" not in n)


def test_lost_gradients_stop_compiled_training(tmp_path):
    class Detached(Small):
        def forward(self, input_ids, attention_mask=None, labels=None):
            hidden = self.tower.embeddings(input_ids)
            hidden = self.tower.layers[0](hidden)
            if not hidden.requires_grad:  # as under reentrant checkpointing, without a gradient at the input
                with torch.no_grad():
                    hidden = self.tower.layers[1](hidden)
            else:
                hidden = self.tower.layers[1](hidden)
            for layer in self.tower.layers[2:]:
                hidden = layer(hidden)
            logits = self.head(hidden)
            if labels is None:
                return {"logits": logits}
            return {"loss": cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}

    with pytest.raises(RequestError, match="2 parameters that should train get no gradient while"):
        train_small(tmp_path, "bottom-up:1", backend="aot_eager", model=Detached())


class Moves(TrainerCallback):
    """Freezes another block after step 2, and thaws all blocks after step 4."""

    def __init__(self, freezing):
        self.freezing = freezing
        self.graphs, self.weights = [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.graphs.append(counters["stats"]["unique_graphs"])
        self.weights.append(weights(kwargs["model"]))
        blocks = {2: 3, 4: 0}.get(state.global_step)
        if blocks is not None:
            self.freezing.move(FreezeMask.first(BLOCKS, blocks), "planned", state)


def train(folder, *, backend=None, cache=False):
    torch._dynamo.reset()
    counters.clear()
    model = tiny_bert()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    freezing = FreezeCallback(BottomUp(2), cache=cache)
    moves = Moves(freezing)
    compiled = {} if backend is None else {"torch_compile": True, "torch_compile_backend": backend}
    make_trainer(
        model,
        folder,
        [freezing, moves],
        train_dataset=FullSentences(),
        max_steps=12,
        adam_epsilon=1e-3,
        per_device_train_batch_size=8,
        **compiled,
    ).train()
    return freezing, moves


def check(eager, compiled):
    """The weights are those of the eager run, and the blocks that are thawed move at once."""
    for name, value in eager.weights[-1].items():
        assert torch.allclose(value, compiled.weights[-1][name], atol=1e-4), name
    assert all(
        f"bert.encoder.layer.{block}.output.dense.weight" in moved(*compiled.weights[3:5]) for block in range(BLOCKS)
    )


# "aot_eager" differentiates and traces as inductor does, without the code generation.
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_training_is_equal_to_eager_training_and_compiles_once_a_move(tmp_path, backend):
    _, eager = train(tmp_path)
    _, compiled = train(tmp_path, backend=backend)
    check(eager, compiled)
    # The first step runs with the hook that checks the order of the blocks. Steps 3 and 5 follow a move.
    assert [after - before for before, after in pairwise(compiled.graphs[1:])] == [1, 0, 1] + [0] * 7


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_cache_serves_in_compiled_training(tmp_path, backend):
    _, eager = train(tmp_path, cache=True)
    freezing, compiled = train(tmp_path, backend=backend, cache=True)
    check(eager, compiled)
    assert freezing.cache.stats.disabled_reason is None
    assert freezing.cache.stats.hits > 0
    assert compiled.graphs[-1] < 20
