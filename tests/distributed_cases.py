"""One training of a tiny BERT by name, alone or as one of two processes: what test_distributed.py launches.

    python -m torch.distributed.run --standalone --nproc_per_node 2 distributed_cases.py FOLDER CASE...

Two processes take 4 sentences each where one takes 8. There is no dropout, which would draw other numbers. All
sentences are equally long, so that the mean of two halves is the mean of all. Epsilon is large, because Adam otherwise
enlarges the rounding error of a gradient that is zero.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.checkpoint import checkpoint
from training import BLOCKS, Sentences, make_trainer, tiny_bert
from transformers import TrainerCallback

from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask, Policy, RequestError
from adaptivefreeze.model.sharding import reshard
from adaptivefreeze.trainer.distributed import wrapped_by_ddp

CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
FSDP = {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["BertLayer"]}}

# name -> policy, settings of the callback, settings of the Trainer
CASES: dict[str, tuple[Policy | str, dict[str, Any], dict[str, Any]]] = {
    "moved": (BottomUp(2), {}, {}),
    "cached": (BottomUp(2), {"cache": True}, {}),
    "checkpointing": (BottomUp(2), {}, CHECKPOINTING),
    "egeria": ("egeria:window=2,tolerance=0.2", {}, {}),
    "autofreeze": ("autofreeze:intervals=2", {}, {}),
    "validation": ("validation:threshold=0,cooldown=0", {}, {"eval_strategy": "steps", "eval_steps": 1}),
    "saved": ("autofreeze:intervals=2", {}, {"save_strategy": "steps", "save_steps": 9}),
    "unused pooler": (BottomUp(2), {}, {}),
    "in part": ("semifreddo:0.5", {}, {"ddp_find_unused_parameters": False}),
    "saved, static": (BottomUp(2), {}, {"save_strategy": "steps", "save_steps": 9}),
    "no search": (BottomUp(2), {}, {"ddp_find_unused_parameters": False}),
    # Refused.
    "static graph": ("autofreeze:intervals=2", {}, {"ddp_static_graph": True}),
    "no search, deeper": (BottomUp(2), {}, {"ddp_find_unused_parameters": False}),
    "shallower": (BottomUp(2), {}, {}),
    "no search, moving": ("autofreeze:intervals=2", {}, {"ddp_find_unused_parameters": False}),
    "added late": (BottomUp(2), {}, CHECKPOINTING),
    "reentrant": (BottomUp(2), {}, {**CHECKPOINTING, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    "lost gradients": (BottomUp(2), {}, {}),
}


class FullSentences(Sentences):
    """Sentences without padding."""

    def __init__(self) -> None:
        super().__init__()
        for index, row in enumerate(self.rows):
            row["input_ids"] = torch.where(row["input_ids"] == 0, 7 + index, row["input_ids"])
            row["attention_mask"] = torch.ones_like(row["attention_mask"])
            row["labels"] = row["input_ids"] % 3


class Move(TrainerCallback):
    """Freezes this many blocks after step 4."""

    def __init__(self, freezing: FreezeCallback, blocks: int) -> None:
        self.freezing, self.blocks = freezing, blocks

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            self.freezing.move(FreezeMask.first(BLOCKS, self.blocks), "planned", state)


def checkpoint_by_hand(model: Any) -> None:
    """Make each block checkpoint reentrantly, in a way that transformers does not know of."""
    for layer in model.bert.encoder.layer:
        forward = layer.forward
        layer.forward = lambda hidden, *args, _forward=forward, **kwargs: checkpoint(
            lambda h: _forward(h, *args, **kwargs), hidden, use_reentrant=True
        )


def refusal(name: str, folder: Path, **settings: Any) -> str:
    """The sentence with which the case is refused, or an empty string."""
    try:
        train(name, folder, **settings)
    except RequestError as error:
        return str(error)
    return ""


def allow_fsdp_on_cpu() -> None:
    """Make accelerate shard on CPU. It shards on accelerators only, and silently falls back to DDP on a CPU."""
    original = AcceleratorState.__init__

    def opened(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = opened


def train(name: str, folder: Path, *, resume: bool = False, **settings: Any) -> dict[str, Any]:
    """Train the case `name`; return its weights, timeline, and what the cache says."""
    policy, options, own = CASES[name]
    model = tiny_bert()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if name == "unused pooler":
        model.bert.pooler = nn.Linear(16, 16)
    if name == "lost gradients":
        checkpoint_by_hand(model)
    freezing = FreezeCallback(policy, **options)
    moved = {"moved": 3, "cached": 3, "saved, static": 3, "no search, deeper": 3, "shallower": 1}
    callbacks = [freezing, Move(freezing, moved[name])] if name in moved else [freezing]
    callbacks = [] if name == "added late" else callbacks
    trainer = make_trainer(
        model,
        folder / name,
        callbacks,
        **{
            "train_dataset": FullSentences(),
            "num_train_epochs": 4,
            "per_device_train_batch_size": 8 // int(os.environ.get("WORLD_SIZE", "1")),
            "adam_epsilon": 1e-3,
            # BERT's loss is a mean already: without this the Trainer multiplies it by the number of processes.
            "average_tokens_across_devices": False,
            **own,
            **settings,
        },
    )
    trainer.eval_dataset = FullSentences()
    if name == "added late":
        trainer.add_callback(freezing)
    trainer.train(resume_from_checkpoint=str(folder / name / "checkpoint-9") if resume else None)
    ddp = wrapped_by_ddp(trainer)
    reshard(trainer.model)
    parameters = dict(trainer.model.named_parameters())
    return {
        "weights": {n: getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for n, p in parameters.items()},
        "reduced": None if ddp is None else ddp._get_ddp_logging_data()["total_parameter_size_bytes"],
        "flags": all(p.requires_grad for p in parameters.values()),
        "sharded": all(hasattr(p, "full_tensor") for p in parameters.values()),
        "timeline": [(c.step, str(c.mask), c.reason) for c in freezing.timeline],
        "cache": None if freezing.cache is None else freezing.cache.stats,
    }


def main() -> None:
    folder, *cases = sys.argv[1:]
    sharded = cases[0] == "fsdp" or "ACCELERATE_USE_FSDP" in os.environ
    allow_fsdp_on_cpu()
    settings: dict[str, Any] = {"ddp_backend": "gloo", **(FSDP if cases[0] == "fsdp" else {})}
    refused = list(CASES)[list(CASES).index("static graph") :]
    results = {name: train(name, Path(folder), **settings) for name in cases if name not in ("fsdp", *refused)}
    for name in ("saved", "saved, static"):
        if name in cases:
            results[name.replace("saved", "resumed")] = train(name, Path(folder), resume=True, **settings)
    assert {name: result["sharded"] for name, result in results.items()} == dict.fromkeys(results, sharded)
    results |= {name: refusal(name, Path(folder), **settings) for name in cases if name in refused}
    torch.save(results, Path(folder) / f"results.{os.environ['RANK']}")
    torch.distributed.destroy_process_group()
    # Without the teardown of the interpreter: at times a thread of torch's own is still there when static objects are
    # destroyed ("terminate called without an active exception").
    os._exit(0)


if __name__ == "__main__":
    main()
