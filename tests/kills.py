"""A training run that is killed at a random moment and resumed, compared with one that is never stopped.

python tests/kills.py FOLDER SEED    run the killed part alone; the process ends by SIGKILL
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from policies.settings import SETTINGS, WRAPPED
from training import losses, make_trainer, moved, tiny_bert, weights
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from adaptivefreeze import Budget, FreezeCallback, PrefixCache
from adaptivefreeze.trainer.checkpoint import STATE_FILE, SavedRun

EPOCHS, STEPS_PER_EPOCH = 4, 6
STEPS = EPOCHS * STEPS_PER_EPOCH
POLICIES = [
    str(policy)
    for policies in (*SETTINGS.values(), WRAPPED)
    for policy in policies
    if not (isinstance(policy, Budget) and policy.clock)  # no two runs by the clock are quite alike
]
CACHES = ("off", "memory", "disk", "passes", "dropout")
MOMENTS = ("in a step", "between the two writes of a checkpoint")


@dataclass(frozen=True)
class Kill:
    """A kill at the end of step `step`, or at the first checkpoint written from then on."""

    policy: str
    cache: str
    step: int
    moment: str = MOMENTS[0]
    save_steps: int = 4
    accumulation: int = 1

    def __str__(self) -> str:
        return (
            f"{self.policy}, cache {self.cache}, killed {self.moment} {self.step} of {STEPS}, saved every "
            f"{self.save_steps}, accumulation {self.accumulation}"
        )


def random_kill(seed: int, policy: str | None = None, cache: str | None = None) -> Kill:
    """Draw a kill. One in three falls into the last pass over the data."""
    draw = random.Random(seed)
    save_steps = draw.randint(2, 6)
    last_pass = draw.random() < 1 / 3
    drawn_policy, drawn_cache = draw.choice(POLICIES), draw.choice(CACHES)
    step = draw.randint(STEPS - STEPS_PER_EPOCH if last_pass else save_steps, STEPS - 1)
    step = max(step, save_steps + 1)  # a checkpoint is written after the end of its step
    moment = draw.choices(MOMENTS, (3, 1))[0]
    if moment == MOMENTS[1]:  # needs a checkpoint before the one that is not completed
        step = min(step, STEPS // save_steps * save_steps)
    return Kill(policy or drawn_policy, cache or drawn_cache, step, moment, save_steps, draw.choice((1, 1, 1, 2)))


def check(kill: Kill, folder: Path, killer: Callable[[Kill, Path], None] | None = None) -> None:
    """Assert that a killed and resumed run ends with the weights, losses and timeline of one that is never stopped.

    Args:
        kill: The kill.
        folder: An empty folder.
        killer: Runs the killed part in `folder / "killed"`. In this process by default.
    """
    whole, reference = make(kill, folder / "whole", save_strategy="no")
    whole.train()
    (killer or run_killed)(kill, folder / "killed")
    complete = [path.parent for path in (folder / "killed").glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    assert all((path / STATE_FILE).exists() for path in complete), f"a checkpoint without freezing state: {kill}"
    last = max(complete, key=lambda path: int(path.name.partition("-")[2]))
    resumed, callback = make(kill, folder / "killed", seed=1)
    resumed.train(resume_from_checkpoint=str(last))
    step = int(last.name.partition("-")[2])
    assert callback.timeline.to_json() == reference.timeline.to_json(), f"another timeline: {kill}"
    assert losses(resumed)[step:] == losses(whole)[step:], f"other losses: {kill}"
    assert not moved(weights(whole.model), weights(resumed.model)), f"other weights: {kill}"
    if callback.cache is not None:
        reasons = callback.cache.stats.disabled_reason, reference.cache.stats.disabled_reason
        assert reasons[0] == reasons[1], f"the cache is disabled in one run only, {reasons}: {kill}"


def make(
    kill: Kill, folder: Path, callbacks: Any = (), seed: int = 0, save_strategy: str = "steps"
) -> tuple[Trainer, FreezeCallback]:
    """A Trainer that shares nothing with an earlier one but `folder`."""
    cache: PrefixCache | bool = {
        "off": lambda: False,
        "memory": lambda: True,
        "disk": lambda: PrefixCache(disk=folder / "rows"),
        "passes": lambda: PrefixCache(passes=2),
        "dropout": lambda: PrefixCache(dropout=0.2),
    }[kill.cache]()
    callback = FreezeCallback(kill.policy, cache=cache)
    trainer = make_trainer(
        tiny_bert(seed), folder, [callback, *callbacks], num_train_epochs=EPOCHS, eval_strategy="steps", eval_steps=3,
        save_strategy=save_strategy, save_steps=kill.save_steps, gradient_accumulation_steps=kill.accumulation,
        per_device_train_batch_size=4 // kill.accumulation,
    )  # fmt: skip
    trainer.compute_metrics = _macro_f1
    return trainer, callback


def _macro_f1(prediction: Any) -> dict[str, float]:
    """The name is that of a metric that policies choose; its value is the accuracy."""
    return {"macro_f1": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


class _Kills(TrainerCallback):
    def __init__(self, kill: Kill, die: Callable[[], None]) -> None:
        self.kill, self.die = kill, die

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.kill.moment == MOMENTS[0] and state.global_step == self.kill.step:
            self.die()


def run_killed(kill: Kill, folder: Path, die: Callable[[], None] | None = None) -> None:
    """Train until the kill, which is an exception by default."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    die = die or interrupt
    save = SavedRun.save

    def save_or_die(saved: SavedRun, checkpoint: Path) -> None:
        save(saved, checkpoint)
        if kill.moment == MOMENTS[1] and int(checkpoint.name.partition("-")[2]) >= kill.step:
            die()

    trainer, _ = make(kill, folder, [_Kills(kill, die)])
    with mock.patch.object(SavedRun, "save", save_or_die), contextlib.suppress(KeyboardInterrupt):
        trainer.train()
        if trainer.state.global_step == STEPS:
            print(f"the policy ended the run before the kill: {kill}", file=sys.stderr)
    torch.manual_seed(12345)  # what the resumed run draws must come from the checkpoint


if __name__ == "__main__":
    run_killed(random_kill(int(sys.argv[2])), Path(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL))
