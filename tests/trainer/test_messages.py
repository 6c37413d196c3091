"""What a FreezeCallback says: on the console, in the Trainer's log, in its summary, and in the model card."""

import logging
import sys

import pytest
import torch
from training import BLOCKS, make_trainer, tiny_bert
from transformers import Trainer
from transformers.integrations.integration_utils import TensorBoardCallback

from adaptivefreeze import (
    BottomUp,
    FreezeCallback,
    FreezeMask,
    Nothing,
    TopDown,
    ValidationDriven,
    find_blocks,
    parse_policy,
)
from adaptivefreeze.model.cost import StepShape, step_ratio
from adaptivefreeze.trainer.forecast import forecast
from adaptivefreeze.trainer.policy_runner import TrainingPlan
from adaptivefreeze.trainer.run import FreezingRun
from adaptivefreeze.trainer.summary import RunMeter

GROWING = {"eval_strategy": "epoch", "num_train_epochs": 4}


def unconfigured(monkeypatch):
    """Logging as in a script that does not configure it. pytest adds its handlers when the test itself begins."""
    monkeypatch.setattr(logging.root, "handlers", [])


def said(text):
    return [line for line in text.splitlines() if line.startswith("adaptivefreeze: ")]


def growing():
    return ValidationDriven(threshold=9.0, cooldown=0)


def test_start_decisions_and_summary_are_shown_without_a_configuration_of_logging(tmp_path, capsys, monkeypatch):
    unconfigured(monkeypatch)
    callback = FreezeCallback(growing(), cache=True)
    make_trainer(tiny_bert(), tmp_path, [callback], **GROWING).train()
    start, *decisions, summary = said(capsys.readouterr().err)
    assert start.startswith(
        "adaptivefreeze: validation:threshold=9.0,cooldown=0 starts with - | embeddings 0-3 head (0% of "
    )
    assert "Predicted step time: 1.00 of full fine-tuning." in start
    assert start.endswith("Prefix cache on from the moment the embeddings and the first block are frozen.")
    assert len(decisions) == len(callback.timeline) - 1 == 4
    for line, change in zip(decisions, list(callback.timeline)[1:], strict=True):
        assert line.startswith(f"adaptivefreeze: Step {change.step} of 24: {change.reason}. Now {change.mask} (")
    assert summary.startswith("adaptivefreeze: Summary of validation:threshold=9.0,cooldown=0, 24 of 24 steps")


@pytest.mark.parametrize(
    ("policy", "arguments", "end"),
    [
        ("bottom-up:2", {"cache": True}, "once the cache is filled. Prefix cache on."),
        ("bottom-up:2", {}, "Prefix cache off (cache=False)."),
        ("top-down:2", {"cache": True}, "Prefix cache off: the embeddings and the first block are not both frozen."),
    ],
)
def test_the_start_line_says_whether_the_cache_is_on(tmp_path, capsys, monkeypatch, policy, arguments, end):
    unconfigured(monkeypatch)
    make_trainer(tiny_bert(), tmp_path, [FreezeCallback(policy, **arguments)]).train()
    start, _ = said(capsys.readouterr().err)
    assert start.endswith(end)
    stack = find_blocks(tiny_bert())
    mask = FreezeMask.first(BLOCKS, 2) if policy == "bottom-up:2" else FreezeMask(BLOCKS, blocks=(2, 3))
    assert f"{policy} freezes {mask} ({stack.frozen_fraction(mask):.0%} of {stack.total:,} parameters frozen)" in start
    assert f"Predicted step time: {step_ratio(stack, mask, StepShape(examples=4)):.2f} of full fine-tuning" in start


def test_the_start_line_says_why_the_cache_is_off(tmp_path, capsys, monkeypatch):
    unconfigured(monkeypatch)
    make_trainer(tiny_bert(), tmp_path, [FreezeCallback("bottom-up:2", cache=True)], num_train_epochs=1).train()
    assert "Prefix cache off: filling it does not pay with 1.0 passes over the data left." in capsys.readouterr().err


class Other(Trainer):
    """A process that is not the main one."""

    def is_world_process_zero(self):
        return False


@pytest.mark.parametrize("way", ["quiet", "level", "process"])
def test_the_console_is_silent_on_request_and_in_other_processes(tmp_path, capsys, monkeypatch, way):
    unconfigured(monkeypatch)
    library = logging.getLogger("adaptivefreeze")
    if way == "level":
        library.setLevel(logging.WARNING)
    callback = FreezeCallback(growing(), quiet=way == "quiet")
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], cls=Other if way == "process" else Trainer, **GROWING)
    trainer.train()
    library.setLevel(logging.NOTSET)
    assert said(capsys.readouterr().err) == []
    assert [e["freeze/mask"] for e in trainer.state.log_history if "freeze/decision" in e] == [
        str(change.mask) for change in list(callback.timeline)[1:]
    ]


@pytest.mark.parametrize(("epochs", "lines"), [(20, 1), (12, 0)])
def test_a_run_of_80_steps_is_forecast(tmp_path, capsys, monkeypatch, epochs, lines):
    unconfigured(monkeypatch)
    callback = FreezeCallback("bottom-up:2", cache=True)
    make_trainer(tiny_bert(), tmp_path, [callback], num_train_epochs=epochs).train()
    found = [line for line in said(capsys.readouterr().err) if "Forecast after 20 steps: " in line]
    assert len(found) == lines
    assert all(line.endswith("of it for cached rows.") for line in found)


@pytest.mark.parametrize("began", [0, 60])
@pytest.mark.parametrize("cached", [False, True])
def test_the_forecast_adds_up_the_steps_that_fill_the_cache_and_those_that_read_it(
    tmp_path, monkeypatch, began, cached
):
    """A full step takes 2 s; 100 steps in epochs of 30."""
    model = tiny_bert()
    run = FreezingRun(parse_policy("bottom-up:2"), model, find_blocks(model), TrainingPlan(100 + began, 30), step=began)
    shape = StepShape(examples=4)
    meter = RunMeter(run.policy, run.stack, run.timeline, total_steps=100 + began, shape=shape, step=began)
    frozen, skipped = (step_ratio(run.stack, run.mask, shape, cached=on) for on in (False, True))
    monkeypatch.setattr(FreezingRun, "cached", cached)
    monkeypatch.setattr(FreezingRun, "row_bytes", 2000)
    for step in range(1, 21):
        assert forecast(run, meter, torch.device("cpu"), began + step) is None
        meter.full_step_seconds.append(2.0)
        meter.seconds += 2 * frozen
    found = forecast(run, meter, torch.device("cpu"), began + 20)
    assert found.full_seconds == pytest.approx(200)
    assert found.seconds == pytest.approx(60 * frozen + 140 * skipped if cached else 200 * frozen)
    assert found.cache_bytes == (3000 if cached else 0)
    run.close(restore=True)


def test_nothing_is_shown_twice_if_logging_is_configured(tmp_path, capsys, monkeypatch):
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("adaptivefreeze: %(message)s"))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    make_trainer(tiny_bert(), tmp_path, [FreezeCallback(BottomUp(1))]).train()
    assert len(said(capsys.readouterr().err)) == 2


class Board(TensorBoardCallback):
    """TensorBoard without its package."""

    def __init__(self):
        self.tb_writer, self.texts = self, []

    def on_train_begin(self, *args, **kwargs):
        pass

    def add_scalar(self, *args):
        pass

    def add_text(self, *text):
        self.texts.append(text)

    def flush(self):
        pass

    close = flush


def test_decisions_are_entries_of_the_log_and_text_in_tensorboard(tmp_path):
    board, callback = Board(), FreezeCallback(growing())
    trainer = make_trainer(tiny_bert(), tmp_path, [callback, board], **GROWING)
    trainer.train()
    changes = list(callback.timeline)[1:]
    assert board.texts == [
        text
        for change in changes
        for text in (
            ("train/freeze/decision", change.reason, change.step),
            ("train/freeze/mask", str(change.mask), change.step),
        )
    ]
    entries = [entry for entry in trainer.state.log_history if "freeze/decision" in entry]
    assert [(e["step"], e["freeze/decision"], e["freeze/mask"]) for e in entries] == [
        (change.step, change.reason, str(change.mask)) for change in changes
    ]
    assert [entry["freeze/frozen_blocks"] for entry in entries] == [1, 2, 3, 4]


def test_the_summary(tmp_path):
    callback = FreezeCallback(growing(), cache=True)
    assert callback.summary() is None
    assert str(callback).endswith(": not trained yet")
    make_trainer(tiny_bert(), tmp_path, [callback], **GROWING).train()
    summary = callback.summary()
    text = str(summary)
    for line in repr(callback.timeline).splitlines():
        assert line in text
    assert text in str(callback)
    stack = callback.stack
    frozen = stack.total - stack.trainable_parameters(FreezeMask.first(BLOCKS, 3))  # in force during the last steps
    step_counters = 4 * sum(len(unit.parameters) for unit in stack.units)  # a value for each tensor
    assert summary.bytes_saved == pytest.approx(12 * frozen, rel=step_counters / stack.total)
    assert summary.peak_bytes_saved == 0
    assert "but nothing while the least was frozen (an estimate)." in text
    assert summary.cache == callback.cache.stats
    assert f"{callback.cache.stats.hit_rate:.0%} of {summary.cache.hits + summary.cache.misses:,} lookups hit" in text
    assert summary.hints[0].startswith("the mask only ever grew, up to bottom-up:3.")


@pytest.mark.parametrize("policy", [Nothing(), BottomUp(2), TopDown(2)], ids=str)
def test_the_time_saved_is_that_of_the_cost_model(tmp_path, policy):
    callback = FreezeCallback(policy)
    make_trainer(tiny_bert(), tmp_path, [callback]).train()
    summary = callback.summary()
    ratio = step_ratio(callback.stack, callback.mask, StepShape(examples=4, tokens=9))
    assert summary.train_seconds > 0
    assert summary.seconds_saved == pytest.approx(summary.train_seconds * (1 / ratio - 1))
    assert (summary.seconds_saved > 0) == (policy != Nothing())


@pytest.mark.parametrize(
    ("policy", "arguments", "hints"),
    [
        ("nothing", {}, []),
        ("bottom-up:2", {}, ["cache=True is predicted to shorten a step"]),
        ("bottom-up:3", {"cache": True}, ["more than half of the blocks are frozen."]),
        ("side:width=32", {"cache": True}, []),
        ("top-down:2", {}, ["bottom-up:2 freezes as many blocks at a predicted"]),
    ],
)
def test_hints(tmp_path, policy, arguments, hints):
    callback = FreezeCallback(policy, **arguments)
    make_trainer(tiny_bert(), tmp_path, [callback], max_steps=2).train()
    found = callback.summary().hints
    assert len(found) == len(hints)
    assert all(hint.startswith(start) for hint, start in zip(found, hints, strict=True))


def test_a_resumed_run_sums_up_its_own_steps(tmp_path):
    settings = {"save_strategy": "epoch", "num_train_epochs": 2}
    make_trainer(tiny_bert(), tmp_path, [FreezeCallback(BottomUp(2))], **settings).train()
    callback = FreezeCallback(BottomUp(2))
    make_trainer(tiny_bert(), tmp_path, [callback], **settings).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-6")
    )
    summary = callback.summary()
    ratio = step_ratio(callback.stack, callback.mask, StepShape(examples=4, tokens=9))
    assert summary.seconds_saved == pytest.approx(summary.train_seconds * (1 / ratio - 1))
    assert (summary.steps, summary.total_steps) == (12, 12)


@pytest.mark.parametrize("model_card", [True, False])
def test_the_model_card_gets_a_section(tmp_path, model_card):
    callback = FreezeCallback(BottomUp(2), cache=True, model_card=model_card)
    trainer = make_trainer(tiny_bert(), tmp_path, [callback])
    trainer.create_model_card(model_name="before training")
    assert "Frozen blocks" not in (tmp_path / "README.md").read_text()
    trainer.train()
    for _ in range(2):
        trainer.create_model_card(model_name="tiny", tags=["test"])
    text = (tmp_path / "README.md").read_text()
    assert text.count("## Frozen blocks\n") == model_card
    assert ("| 0 | `embeddings+0-1 \\| 2-3 head` | static |" in text) == model_card
    assert "- name: tiny\n" in text.split("---")[1]
