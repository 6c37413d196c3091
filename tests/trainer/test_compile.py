"""torch_compile=True: equal to eager training while the mask moves, and one new graph a move."""

from itertools import pairwise

import pytest
import torch
from distributed_cases import FullSentences
from torch import nn
from torch._dynamo.utils import counters
from training import BLOCKS, make_trainer, moved, tiny_bert, weights
from transformers import TrainerCallback

from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask

pytestmark = pytest.mark.slow


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
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_training_is_equal_to_eager_training_and_compiles_once_a_move(tmp_path, backend):
    _, eager = train(tmp_path)
    _, compiled = train(tmp_path, backend=backend)
    check(eager, compiled)
    # The first step runs with the hook that checks the order of the blocks. Steps 3 and 5 follow a move.
    assert [after - before for before, after in pairwise(compiled.graphs[1:])] == [1, 0, 1] + [0] * 7


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_cache_serves_in_compiled_training(tmp_path, backend):
    _, eager = train(tmp_path, cache=True)
    freezing, compiled = train(tmp_path, backend=backend, cache=True)
    check(eager, compiled)
    assert freezing.cache.stats.disabled_reason is None
    assert freezing.cache.stats.hits > 0
    assert compiled.graphs[-1] < 20
