"""Two real processes, under DDP and FSDP2: the same weights and decisions as in one process.

Accelerate shards on accelerators only. The launched script makes it shard on the CPU too (`allow_fsdp_on_cpu`). The
rest is the code that runs on GPUs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from distributed_cases import train
from torch.nn.parallel import DistributedDataParallel
from training import make_trainer, tiny_bert

from adaptivefreeze import BottomUp, FreezeCallback, find_blocks
from adaptivefreeze.errors import RequestError
from adaptivefreeze.trainer.distributed import refuse_ddp

SCRIPT = Path(__file__).parents[1] / "distributed_cases.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
DDP = ["moved", "cached", "checkpointing", "egeria", "unused pooler", "in part", "no search", "saved, static"]
REFUSED = {
    "static graph": "static graph requires that the same parameters train .* unset ddp_static_graph",
    "no search, deeper": "frozen ones have none: set ddp_find_unused_parameters=True",
    "shallower": "DDP does not exchange the gradients of 16 parameters, such as .* use an adaptive policy to unfreeze",
    "no search, moving": "frozen ones have none: set ddp_find_unused_parameters=True",
    "added late": "frozen ones have none: set ddp_find_unused_parameters=True",
    "reentrant": "reentrant activation checkpointing does not work with DDP",
    "lost gradients": "32 parameters that should train get no gradient while",
}
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip


def launch(launcher, folder, *cases):
    """Run the cases in two processes, and return the results of both."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(folder), *cases],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return [torch.load(folder / f"results.{rank}", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The results of one process, by case."""
    known = {}
    folder = tmp_path_factory.mktemp("alone")
    return lambda name: known.setdefault(name, known.get(name) or train(name, folder))


def check(both, name, expected):
    """Both processes hold the weights and the timeline of one process."""
    for result in (both[0][name], both[1][name]):
        assert [(step, mask) for step, mask, _ in result["timeline"]] == [
            (step, mask) for step, mask, _ in expected["timeline"]
        ], name
        for parameter, value in expected["weights"].items():
            assert torch.allclose(result["weights"][parameter], value, atol=1e-4, rtol=0), (name, parameter)
    assert all(torch.equal(value, both[1][name]["weights"][p]) for p, value in both[0][name]["weights"].items())


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    return launch(TORCHRUN, tmp_path_factory.mktemp("ddp"), *DDP, *REFUSED)


@pytest.mark.parametrize("name", DDP)
def test_ddp_trains_and_decides_as_one_process(ddp, alone, name):
    check(ddp, name, alone(name))
    masks = {mask for _, mask, _ in ddp[0][name]["timeline"]}
    assert len(masks) > 1 or name in ("checkpointing", "unused pooler", "in part", "no search")


@pytest.mark.parametrize("name", REFUSED)
def test_ddp_refuses(ddp, name):
    """In both processes, so that neither waits for the other. The gradient guard refuses the last one."""
    for result in ddp:
        assert re.search(REFUSED[name], result[name]), result[name]


def test_a_static_graph_allows_a_mask_that_stays(tmp_path, monkeypatch):
    """By its configuration alone."""
    trainer = make_trainer(tiny_bert(), tmp_path)
    wrapped = object.__new__(DistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.static_graph, wrapped.find_unused_parameters = True, False
    monkeypatch.setattr(trainer, "model_wrapped", wrapped)
    refuse_ddp(trainer, trainer.model, moves=False, waits=True)
    with pytest.raises(RequestError, match="static graph"):
        refuse_ddp(trainer, trainer.model, moves=True, waits=True)


def test_ddp_exchanges_no_gradients_of_what_a_static_policy_freezes(ddp):
    frozen = find_blocks(tiny_bert()).frozen(BottomUp(2).initial_mask(find_blocks(tiny_bert())))
    sizes = {name: parameter.nbytes for name, parameter in tiny_bert().named_parameters()}
    trained = sum(size for name, size in sizes.items() if name not in frozen)
    for result in ddp:
        assert result["moved"]["reduced"] == result["no search"]["reduced"] == trained < sum(sizes.values())
        assert result["egeria"]["reduced"] == sum(sizes.values())
        assert result["moved"]["flags"], "the flags are restored"


def test_ddp_resumes_a_static_policy_exactly(ddp):
    for result in ddp:
        saved, resumed = result["saved, static"], result["resumed, static"]
        assert resumed["timeline"] == saved["timeline"]
        assert all(torch.equal(value, resumed["weights"][name]) for name, value in saved["weights"].items())
        assert resumed["reduced"] < saved["reduced"], "the checkpoint holds the deeper mask"


def test_the_cache_serves_under_ddp(ddp):
    for result in ddp:
        stats = result["cached"]["cache"]
        assert stats.disabled_reason is None
        assert stats.hits > 0


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    return launch(TORCHRUN, tmp_path_factory.mktemp("fsdp"), "fsdp", "moved", "cached", "saved", "validation")


@pytest.mark.parametrize("name", ["moved", "saved", "validation"])
def test_fsdp2_trains_and_decides_as_one_process(fsdp, alone, name):
    check(fsdp, name, alone(name))
    assert len({mask for _, mask, _ in fsdp[0][name]["timeline"]}) > 1


def test_fsdp2_resumes_exactly(fsdp):
    for result in fsdp:
        assert result["resumed"]["timeline"] == result["saved"]["timeline"]
        assert all(torch.equal(v, result["resumed"]["weights"][n]) for n, v in result["saved"]["weights"].items())


def test_fsdp2_disables_the_cache_with_a_reason(fsdp, alone):
    assert all("sharded" in result["cached"]["cache"].disabled_reason for result in fsdp)
    check(fsdp, "cached", alone("moved"))


def test_accelerate_launch_with_ddp(tmp_path, alone):
    check(launch([*ACCELERATE, "--multi_gpu"], tmp_path, "checkpointing"), "checkpointing", alone("checkpointing"))


def test_accelerate_launch_with_fsdp2(tmp_path, alone):
    options = [
        *("--use_fsdp", "--fsdp_version", "2", "--fsdp_state_dict_type", "FULL_STATE_DICT"),
        *("--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", "--fsdp_transformer_layer_cls_to_wrap", "BertLayer"),
    ]
    check(launch([*ACCELERATE, *options], tmp_path, "saved"), "saved", alone("saved"))


@pytest.mark.parametrize(
    ("plugins", "reason"),
    [
        ({"fsdp_plugin": SimpleNamespace(fsdp_version=1, use_orig_params=False)}, "FSDP1 .*use_orig_params"),
        ({"fsdp_plugin": SimpleNamespace(fsdp_version=1, use_orig_params=True)}, "FSDP1"),
        ({"deepspeed_plugin": SimpleNamespace(zero_stage=3, enable_msamp=False)}, "ZeRO-3"),
    ],
)
def test_other_sharding_is_refused_before_the_first_step(tmp_path, monkeypatch, plugins, reason):
    """By their configuration alone: neither runs on a CPU."""
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("bottom-up:2")])
    for name, plugin in plugins.items():
        monkeypatch.setattr(type(trainer.accelerator.state), name, plugin, raising=False)
    with pytest.raises(RequestError, match=reason):
        trainer.train()
    assert trainer.state.global_step == 0
