"""A run that is killed and resumed ends like one that never stopped, in both ways in which a Trainer resumes."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training import losses, make_trainer, moved, tiny_bert, weights
from transformers import Trainer, TrainerCallback, TrainerState

from adaptivefreeze import AutoFreeze, BottomUp, Budget, FreezeCallback, FreezeMask, Policy, PrefixCache, RequestError
from adaptivefreeze.model.timeline import Change, Timeline
from adaptivefreeze.policies import AdaptivePolicy, Decision, DecisionPoints
from adaptivefreeze.trainer.checkpoint import SavedRun

SETTINGS = {"save_strategy": "steps", "save_steps": 4}


@dataclass
class OneMore(AdaptivePolicy):
    """Not registered: freezes one more block every `every` steps, and slows the head down."""

    name = "one-more"
    every: int
    _frozen: int = field(default=0, init=False)

    def initial_mask(self, stack):
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps, steps_per_epoch):
        return DecisionPoints(range(self.every, total_steps, self.every))

    def update(self, signals):
        self._frozen = min(self._frozen + 1, signals.mask.depth - 1)
        return Decision(FreezeMask.first(signals.mask.depth, self._frozen), "one more", {"head": 0.5**self._frozen})

    def state_dict(self):
        return {"frozen": self._frozen}

    def load_state_dict(self, state):
        self._frozen = state["frozen"]


class OneBlock(Policy):
    """Not registered, and not a dataclass."""

    def initial_mask(self, stack):
        return FreezeMask.first(stack.depth, 1)

    def __str__(self):
        return "my policy"


class Killed(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7:
            raise KeyboardInterrupt


def killed_run(folder, policy, **settings):
    """A run that stops after step 7. Its last checkpoint is that of step 4."""
    with contextlib.suppress(KeyboardInterrupt):
        make_trainer(tiny_bert(), folder, [FreezeCallback(policy), Killed()], **SETTINGS, **settings).train()
    return str(folder / "checkpoint-4")


def resume(folder, callback, checkpoint, **settings):
    trainer = make_trainer(tiny_bert(1), folder, [callback], **SETTINGS, **settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize(
    "policy",
    [lambda: BottomUp(2), lambda: AutoFreeze(90, intervals=2), lambda: OneMore(3), OneBlock],
    ids=["bottom-up", "autofreeze", "not registered", "no dataclass"],
)
def test_resumed_equals_never_stopped(tmp_path, policy, restored):
    """The same weights, losses and timeline, which the user's own object holds."""
    settings = {"restore_callback_states_from_checkpoint": restored}
    never_stopped, callback = FreezeCallback(policy()), FreezeCallback(policy(), cache=False, eval_frozen=False)
    whole = make_trainer(tiny_bert(), tmp_path / "whole", [never_stopped], **SETTINGS, **settings)
    whole.train()
    checkpoint = killed_run(tmp_path / "killed", policy(), **settings)
    resumed = resume(tmp_path / "killed", callback, checkpoint, **settings)
    assert not moved(weights(whole.model), weights(resumed.model))
    assert losses(whole)[4:] == losses(resumed)[4:]
    assert callback in resumed.callback_handler.callbacks
    assert len(callback.timeline) >= 1
    assert callback.timeline.to_json() == never_stopped.timeline.to_json()
    assert callback.mask == never_stopped.mask
    assert all(p.requires_grad for p in resumed.model.parameters())


@pytest.mark.parametrize("restored", [False, True])
def test_what_the_user_wrote_wins(tmp_path, restored):
    """The cache and the mode of frozen units are those of the resumed callback, not those of the checkpoint."""
    settings = {"restore_callback_states_from_checkpoint": restored}
    checkpoint = killed_run(tmp_path, BottomUp(2), **settings)
    callback = FreezeCallback(BottomUp(2), cache=PrefixCache(memory="1MiB"))
    resume(tmp_path, callback, checkpoint, **settings)
    assert callback.cache.stats.hits + callback.cache.stats.misses > 0
    assert len(callback.timeline) == 1


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("policy", [BottomUp(1), OneMore(2)], ids=str)
def test_another_policy_starts_anew_with_a_warning(tmp_path, caplog, policy, restored):
    settings = {"restore_callback_states_from_checkpoint": restored}
    checkpoint = killed_run(tmp_path, OneMore(3), **settings)
    callback = FreezeCallback(policy)
    resume(tmp_path, callback, checkpoint, **settings)
    assert f"written under the policy one-more:3: {policy} starts anew." in caplog.text
    assert callback.policy is policy
    assert callback.timeline[0].step == 4
    assert callback.timeline[0].mask == policy.initial_mask(callback.stack)


def test_another_class_of_the_same_spec_starts_anew(tmp_path, caplog):
    checkpoint = killed_run(tmp_path, OneMore(3))

    class Impostor(OneMore):
        pass

    resume(tmp_path, FreezeCallback(Impostor(3)), checkpoint)
    assert "written under the policy one-more:3 (OneMore): one-more:3 starts anew." in caplog.text


@pytest.mark.parametrize("restored", [False, True])
def test_resuming_from_a_checkpoint_without_freezing(tmp_path, caplog, restored):
    settings = {"restore_callback_states_from_checkpoint": restored}
    make_trainer(tiny_bert(), tmp_path, **SETTINGS, **settings).train()
    callback = FreezeCallback(BottomUp(2))
    resume(tmp_path, callback, str(tmp_path / "checkpoint-4"), **settings)
    assert "checkpoint-4 holds no freezing state" in caplog.text
    assert "bottom-up:2 starts anew" in caplog.text
    assert callback.timeline[0].step == 4
    assert json.loads((tmp_path / "checkpoint-12" / "freezing.json").read_text())["policy"] == "bottom-up:2"


def test_a_trial_of_a_hyperparameter_search_saves_into_its_own_folder(tmp_path):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback(BottomUp(2))], num_train_epochs=1, **SETTINGS)
    trainer.model_init = lambda trial=None: tiny_bert()
    trainer.hyperparameter_search(
        hp_space=lambda trial: {}, compute_objective=lambda metrics: metrics["eval_loss"], n_trials=1, backend="optuna"
    )
    assert (tmp_path / "run-0" / "checkpoint-4" / "freezing.json").exists()


def test_a_checkpoint_is_complete_or_absent(tmp_path, caplog):
    state = {
        "policy": "p", "policy_class": "P", "policy_state": {}, "learning_rates": {}, "pace": {},
        "ended": False, "settings": {},
        "cache": {}, "without_state": [], "timeline": Timeline([Change(0, FreezeMask(4), "static")]).to_json(),
    }  # fmt: skip
    saved = SavedRun(**state, tensors={"weights/a": torch.arange(3.0)})
    saved.save(tmp_path)
    assert SavedRun.load(tmp_path) == saved
    assert torch.equal(SavedRun.load(tmp_path).tensors["weights/a"], torch.arange(3.0))
    SavedRun(**state).save(tmp_path)
    assert not SavedRun.load(tmp_path).tensors, "the tensors of an earlier run are gone"
    (tmp_path / "freezing.json").unlink()
    assert SavedRun.load(tmp_path) is None
    saved.save(tmp_path / "absent")
    assert "is not saved" in caplog.text


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


FAULTS = {
    "trainer_state.json is missing": lambda folder: (folder / "trainer_state.json").unlink(),
    "freezing.safetensors is missing": lambda folder: (folder / "freezing.safetensors").unlink(),
    "freezing.json is damaged": lambda folder: _truncate(folder / "freezing.json"),
    "freezing.json is damaged ": lambda folder: (folder / "freezing.json").write_text("[]"),
    "freezing.json is damaged  ": lambda folder: (folder / "freezing.json").write_bytes(b"\xff"),
    "freezing.safetensors is damaged": lambda folder: _truncate(folder / "freezing.safetensors"),
    "freezing.safetensors is damaged ": lambda folder: save_file({}, folder / "freezing.safetensors"),
}


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_incomplete_checkpoint_is_refused(tmp_path, fault, restored):
    settings = {"restore_callback_states_from_checkpoint": restored}
    checkpoint = killed_run(tmp_path, AutoFreeze(intervals=2), **settings)
    FAULTS[fault](tmp_path / "checkpoint-4")
    with pytest.raises(RequestError, match=f"{fault.strip()}: resume from an earlier checkpoint"):
        resume(tmp_path, FreezeCallback(AutoFreeze(intervals=2)), checkpoint, **settings)


@pytest.mark.parametrize("killed", [(SavedRun, "save"), (TrainerState, "save_to_json")], ids=["freezing", "trainer"])
def test_killed_while_the_last_of_one_checkpoint_is_written(tmp_path, monkeypatch, killed):
    """The earlier checkpoint is still there, although only one is kept, and continues the run."""
    settings = {**SETTINGS, "save_total_limit": 1}
    callback = FreezeCallback(AutoFreeze(90, intervals=2))
    whole = make_trainer(tiny_bert(), tmp_path / "whole", [callback], **settings)
    whole.train()
    write = getattr(*killed)

    def killed_at_step_8(self, path):
        if "checkpoint-8" in str(path):
            raise KeyboardInterrupt
        write(self, path)

    interrupted = make_trainer(tiny_bert(), tmp_path, [FreezeCallback(AutoFreeze(90, intervals=2))], **settings)
    with monkeypatch.context() as patched:
        patched.setattr(*killed, killed_at_step_8)
        with pytest.raises(KeyboardInterrupt):
            interrupted.train()
    with pytest.raises(RequestError, match=r"checkpoint-8 is incomplete, trainer_state\.json is missing"):
        resume(tmp_path, FreezeCallback(AutoFreeze(90, intervals=2)), True)
    resumed = resume(tmp_path, FreezeCallback(AutoFreeze(90, intervals=2)), str(tmp_path / "checkpoint-4"))
    assert not moved(weights(whole.model), weights(resumed.model))


@pytest.mark.parametrize("restored", [False, True])
def test_resumed_without_the_callback_and_then_with_it_again(tmp_path, caplog, restored):
    """Nothing is broken: the policy starts anew, and the sentence says why and how to continue the earlier one."""
    settings = {**SETTINGS, "num_train_epochs": 3, "restore_callback_states_from_checkpoint": restored}
    checkpoint = killed_run(tmp_path, AutoFreeze(90, intervals=2), num_train_epochs=3)
    make_trainer(tiny_bert(), tmp_path, **settings).train(resume_from_checkpoint=checkpoint)
    assert "starts anew" not in caplog.text
    callback = FreezeCallback(AutoFreeze(90, intervals=2))
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert trainer.state.global_step == 18
    assert callback.timeline[0].step == 8
    assert (
        "checkpoint-8 holds no freezing state, because it was written without a FreezeCallback or freezing.json was "
        "removed: autofreeze:percentile=90,intervals=2 starts anew. To continue an earlier policy, resume from a "
        "checkpoint with freezing.json." in caplog.text
    )


def test_a_trainer_that_does_not_save_through_save_model(tmp_path):
    class Own(Trainer):
        def _save_checkpoint(self, model, trial):
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self._save(str(folder))
            self._save_optimizer_and_scheduler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / "trainer_state.json"))

    callbacks = [FreezeCallback(OneMore(3)) for _ in range(2)]
    make_trainer(tiny_bert(), tmp_path, [callbacks[0]], cls=Own, **SETTINGS).train()
    resume(tmp_path, callbacks[1], str(tmp_path / "checkpoint-4"))
    assert callbacks[1].timeline.to_json() == callbacks[0].timeline.to_json()


@pytest.mark.parametrize("save_only_model", [False, True])
def test_a_model_of_another_depth_is_refused(tmp_path, save_only_model):
    checkpoint = killed_run(tmp_path, BottomUp(2), save_only_model=save_only_model)
    trainer = make_trainer(tiny_bert(blocks=6), tmp_path, [FreezeCallback(BottomUp(2))], **SETTINGS)
    with pytest.raises(RequestError, match="checkpoint-4 is of a model with 4 blocks, and this model has 6"):
        trainer.train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("restored", [False, True])
def test_changed_settings_hold_with_a_warning(tmp_path, caplog, restored):
    settings = {"restore_callback_states_from_checkpoint": restored}
    checkpoint = killed_run(tmp_path, BottomUp(2), **settings)
    callback = FreezeCallback(BottomUp(2), cache=PrefixCache(passes=2), eval_frozen=True)
    trainer = resume(tmp_path, callback, checkpoint, **settings)
    assert (
        "written with eval_frozen=False and cache=None; this run continues with eval_frozen=True and "
        "cache=PrefixCache(passes=2)." in caplog.text
    )
    assert callback in trainer.callback_handler.callbacks
    assert callback.cache.stats.misses > 0
    assert len(callback.timeline) == 1


def test_unchanged_settings_need_no_warning(tmp_path, caplog):
    checkpoint = killed_run(tmp_path, BottomUp(2))
    resume(tmp_path, FreezeCallback(BottomUp(2)), checkpoint)
    assert "checkpoint was written" not in caplog.text


def test_a_run_that_its_policy_ended_is_not_continued(tmp_path):
    """The last checkpoint was written, but the process ended before `train()` returned."""
    settings = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 4}
    policy = Budget(0.8, clock=False)
    whole = make_trainer(tiny_bert(), tmp_path, [FreezeCallback(policy)], **settings)
    whole.train()
    assert whole.state.global_step == 20 < whole.state.max_steps
    resumed = make_trainer(tiny_bert(1), tmp_path, [FreezeCallback(policy)], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    assert resumed.state.global_step == 20
    assert not moved(weights(whole.model), weights(resumed.model))
