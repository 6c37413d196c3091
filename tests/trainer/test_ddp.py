"""Two real processes under DDP: freezing and the cache work, and both ranks end with the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from training import BLOCKS, make_trainer, moved, tiny_bert, weights
from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask
from transformers import TrainerCallback

class Deeper(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            callback.move(FreezeMask.first(BLOCKS, 3), "planned", state)

cached = sys.argv[2] == "cached"
callback = FreezeCallback(BottomUp(2), cache=cached)
model = tiny_bert()
before = weights(model)
trainer = make_trainer(model, sys.argv[1], [callback, Deeper()], num_train_epochs=4, ddp_backend="gloo")
trainer.train()
after = weights(model)
frozen = callback.stack.frozen(BottomUp(2).initial_mask(callback.stack))
assert trainer.args.world_size == 2
assert not moved(before, after) & frozen
assert moved(before, after) == set(before) - frozen
if cached:
    assert callback.cache.stats.disabled_reason is None, callback.cache.stats
    assert callback.cache.stats.hits > 0
flat = torch.cat([value.flatten() for value in after.values()])
both = [torch.empty_like(flat) for _ in range(2)]
torch.distributed.all_gather(both, flat)
assert torch.equal(*both)
(Path(sys.argv[1]) / f"done.{trainer.args.process_index}").touch()
torch.distributed.destroy_process_group()
# Without the interpreter's teardown: now and then a thread of torch's own is still there when static objects are
# destroyed ("terminate called without an active exception", no Python frame left), which says nothing of the training.
os._exit(0)
"""


@pytest.mark.parametrize("mode", ["plain", "cached"])
def test_both_ranks_end_with_the_same_weights(tmp_path, mode):
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(tmp_path / "train.py"), str(tmp_path), mode],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    # A file each, since two ranks write their lines of standard output into one another.
    assert sorted(path.name for path in tmp_path.glob("done.*")) == ["done.0", "done.1"]
