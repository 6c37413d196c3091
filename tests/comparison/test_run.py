"""One run: what it measures, that it starts where it should, and how it fails."""

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask, Nothing, find_blocks, parse_policy
from adaptivefreeze.comparison import FailedRun, StudySettings, run_scenario
from adaptivefreeze.comparison.callbacks import TrainingDiverged
from adaptivefreeze.comparison.prediction import predicted_ratio, share_seen_again, step_shape
from adaptivefreeze.comparison.records import starting_model
from adaptivefreeze.comparison.run import failure_sentence, run_or_record_failure, warm_up
from adaptivefreeze.meters import step_timer
from adaptivefreeze.model.cost import step_ratio
from adaptivefreeze.model.fingerprint import model_fingerprint
from adaptivefreeze.model.timeline import Change, Timeline


@pytest.fixture(scope="module")
def model(task):
    return starting_model(task)[1]


def test_a_run_measures_all_that_a_result_holds(task, settings, model):
    began = time.perf_counter()
    run = run_scenario(task, BottomUp(2), 3, settings, model=model, order=5)
    wall = time.perf_counter() - began
    stack = find_blocks(task.new_model(3))
    mask = BottomUp(2).initial_mask(stack)
    assert (run.scenario, run.seed, run.order, run.status) == ("bottom-up:2", 3, 5, "done")
    assert run.steps == 6  # 24 examples, 8 a step, 2 epochs
    assert run.samples_per_second == pytest.approx(48 / run.train_seconds)
    assert 0 < run.train_seconds < wall
    assert 0 < run.eval_seconds < wall - run.train_seconds
    assert run.trainable_parameters == stack.trainable_parameters(mask)
    assert run.frozen_fraction == pytest.approx(1 - run.trainable_parameters / stack.total)
    assert 0.3 < run.predicted_step_ratio < 1
    (change,) = run.timeline
    assert (change["step"], change["mask"], change["reason"]) == (0, "embeddings+0-1 | 2-3 head", "static")
    assert FreezeMask.from_json(change["frozen"]) == mask
    assert [(p.step, p.epoch) for p in run.validation] == [(3, 1.0), (6, 2.0)]
    assert 0 < run.validation[0].seconds < run.validation[1].seconds == run.train_seconds
    assert set(run.metrics.per_class) == {"LOC", "PER"}
    assert run.task.labels == task.labels
    assert run.environment["device"] == "cpu"
    assert run.settings["learning_rate"] == 1e-2


def test_a_run_records_what_its_policy_measured_and_how_steady_its_steps_were(task, settings, model):
    run = run_scenario(task, parse_policy("autofreeze:intervals=1"), 0, settings, model=model)
    assert {record.step for record in run.signals} >= {3}
    assert all(record.values for record in run.signals)
    assert {record.name for record in run.signals} == {"gradients"}
    assert 0 < run.timing.lower <= run.timing.median <= run.timing.upper <= run.train_seconds
    assert run.task.label_counts.keys() == {"validation", "test"}
    assert set(run.task.label_counts["test"]) <= set(task.labels)
    assert run_scenario(task, BottomUp(2), 0, settings, model=model).signals == ()


def test_eval_steps_come_besides_the_ends_of_epochs_and_no_step_is_evaluated_twice(task, settings, model):
    run = run_scenario(task, Nothing(), 0, replace(settings, eval_steps=2), model=model)
    assert [point.step for point in run.validation] == [2, 3, 4, 6]


def test_training_that_ends_within_an_epoch_is_evaluated_there(task, settings, model):
    run = run_scenario(task, Nothing(), 0, replace(settings, training_arguments={"max_steps": 4}), model=model)
    assert [point.step for point in run.validation] == [3, 4]


def test_a_run_is_the_same_each_time_and_depends_on_its_seed(task, settings, model):
    once, again, other = (run_scenario(task, BottomUp(1), seed, settings, model=model) for seed in (0, 0, 1))
    assert (once.train_loss, once.metrics) == (again.train_loss, again.metrics)
    assert once.train_loss != other.train_loss


def test_the_study_learns(task, model):
    settings = StudySettings(epochs=12, batch_size=8, learning_rate=1e-2, device="cpu")
    run = run_scenario(task, Nothing(), 0, settings, model=model)
    assert run.metrics.macro_f1 > 0.9


def test_with_the_cache_the_prefix_is_skipped_from_the_second_epoch_on(task, settings, model):
    run = run_scenario(task, BottomUp(3), 0, replace(settings, cache=True), model=model)
    plain = run_scenario(task, BottomUp(3), 0, settings, model=model)
    assert run.cache
    assert run.cache_stats["hits"] >= 24
    assert run.cache_stats["disabled_reason"] is None
    assert plain.cache_stats is None
    assert run.predicted_step_ratio < plain.predicted_step_ratio


def test_the_prediction_weighs_first_and_later_epochs(task, settings):
    stack = find_blocks(task.new_model(0))
    mask, shape = BottomUp(3).initial_mask(stack), step_shape(task, settings)
    timeline = Timeline([Change(0, mask, "static")])
    never, always = step_ratio(stack, mask, shape), step_ratio(stack, mask, shape, cached=True)
    assert predicted_ratio(stack, timeline, 10, shape) == pytest.approx(never)
    assert predicted_ratio(stack, timeline, 10, shape, 0.75) == pytest.approx(0.25 * never + 0.75 * always)
    assert (share_seen_again(4), share_seen_again(1), share_seen_again(0.5)) == (0.75, 0, 0)


def test_classification_has_no_entities(texts, settings):
    run = run_scenario(texts, Nothing(), 0, settings, model=starting_model(texts)[1])
    assert run.metrics.entity_f1 is None
    assert set(run.metrics.per_class) == {"Ada", "Bo"}
    assert run.validation[-1].entity_f1 is None


def test_training_time_includes_the_freezing_callback_and_excludes_listeners(task, settings, model, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(step_timer, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def takes(seconds):
        now[0] += seconds

    monkeypatch.setattr(FreezeCallback, "on_step_begin", lambda *a, **k: takes(1), raising=False)
    monkeypatch.setattr(FreezeCallback, "on_step_end", lambda *a, **k: takes(2), raising=False)
    calls = []

    def on_step(*step):
        calls.append(step)
        takes(100)

    run = run_scenario(task, Nothing(), 0, settings, model=model, on_step=on_step)
    assert calls == [(step, 6) for step in range(1, 7)]
    assert run.train_seconds == 6 * 3
    assert [point.seconds for point in run.validation] == [9, 18]
    assert run.samples_per_second == 48 / 18


def test_processor_time_leaves_out_what_others_take(task, settings, model, monkeypatch):
    began = FreezeCallback.on_step_begin

    def wait(self, *args, **kwargs):
        time.sleep(0.2)  # as if another process had the core
        return began(self, *args, **kwargs)

    monkeypatch.setattr(FreezeCallback, "on_step_begin", wait)
    wall = run_scenario(task, Nothing(), 0, settings, model=model)
    processor = run_scenario(task, Nothing(), 0, replace(settings, clock="processor"), model=model)
    assert wall.train_seconds > 0.2 * wall.steps
    assert 0 < processor.train_seconds < wall.train_seconds - 0.1 * wall.steps


def test_the_saved_model_is_the_trained_one(task, settings, model, tmp_path):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    run_scenario(task, BottomUp(2), 0, settings, model=model, save_to=tmp_path)
    start = dict(task.new_model(0).named_parameters())
    saved = AutoModelForTokenClassification.from_pretrained(tmp_path)
    moved = {name for name, p in saved.named_parameters() if not torch.equal(p, start[name])}
    assert not any("embeddings" in name or "layer.0." in name or "layer.1." in name for name in moved)
    assert any("layer.2." in name for name in moved)
    assert "classifier.weight" in moved
    assert saved.config.id2label == dict(enumerate(task.labels))
    assert (
        AutoTokenizer.from_pretrained(tmp_path)("Ada sees Oslo").input_ids == task.tokenizer("Ada sees Oslo").input_ids
    )


def test_checkpoints_are_kept_where_they_were_asked_for(task, settings, model, tmp_path):
    keeping = replace(settings, training_arguments={"save_strategy": "epoch"})
    assert keeping.keeps_checkpoints
    assert not settings.keeps_checkpoints
    run_scenario(task, BottomUp(2), 0, keeping, model=model, checkpoints=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-3", "checkpoint-6"}


def test_a_loss_that_is_no_number_ends_the_run_with_advice(task, settings, model):
    wild = replace(settings, learning_rate=1e30, training_arguments={"logging_steps": 1, "max_grad_norm": 0.0})
    with pytest.raises(
        TrainingDiverged, match=r"training loss was nan by step [1-5]: try a learning rate below 1e\+30"
    ):
        run_scenario(task, Nothing(), 0, wild, model=model)


def test_a_loss_that_is_no_number_is_seen_at_the_end_too(task, settings, model):
    unlogged = replace(settings, learning_rate=1e30, training_arguments={"logging_strategy": "no"})
    with pytest.raises(TrainingDiverged, match="by step 6"):
        run_scenario(task, Nothing(), 0, unlogged, model=model)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), "Out of memory: try a smaller --batch-size"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), "Out of memory"),
        (MemoryError(), r"Out of memory.*\(MemoryError\)"),
        (TrainingDiverged("the loss was nan"), "Training diverged: the loss was nan."),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_a_failure_is_said_in_one_line(error, words):
    sentence = failure_sentence(error)
    assert "\n" not in sentence
    assert re.search(words, sentence)


def test_an_attempt_records_the_failure_and_lets_ctrl_c_pass(task, settings, model, monkeypatch):
    def fail(error):
        def step(*args, **kwargs):
            raise error

        monkeypatch.setattr("transformers.Trainer.training_step", step)

    fail(torch.OutOfMemoryError("CUDA out of memory"))
    run = run_or_record_failure(task, BottomUp(1), 4, settings, model=model, order=2)
    assert isinstance(run, FailedRun)
    assert (run.scenario, run.seed, run.order) == ("bottom-up:1", 4, 2)
    assert run.error.startswith("Out of memory")
    fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_or_record_failure(task, BottomUp(1), 4, settings, model=model)


def test_a_warm_up_trains_a_few_steps_and_survives_a_failure(task, settings, monkeypatch, caplog):
    from transformers import Trainer

    steps, original = [], Trainer.training_step
    monkeypatch.setattr(Trainer, "training_step", lambda *a, **k: (steps.append(1), original(*a, **k))[1])
    warm_up(task, settings)
    assert len(steps) == 3

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Trainer, "training_step", fail)
    warm_up(task, settings)
    assert "The warm-up failed (no memory)" in caplog.text


def test_a_fingerprint_is_of_the_weights(task):
    model, same, other = task.new_model(0), task.new_model(0), task.new_model(1)
    assert model_fingerprint(model) == model_fingerprint(same) != model_fingerprint(other)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-3
    assert model_fingerprint(model) != model_fingerprint(same)


def test_the_step_shape_is_that_of_padded_batches(task, texts, settings):
    assert step_shape(replace(task, pad_to_max_length=True), settings).tokens == 16
    assert step_shape(texts, settings).tokens == 6
    assert step_shape(task, replace(settings, batch_size=1000)).examples == 24

    uneven = SimpleNamespace(train={"input_ids": [[0] * n for n in range(1, 201)]}, pad_to_max_length=False)
    mixed = replace(settings, training_arguments={"train_sampling_strategy": "random"})
    assert step_shape(uneven, mixed).tokens == pytest.approx(200 * 8 / 9, abs=8)  # the expected longest of eight
    assert step_shape(uneven, settings).tokens < 130
    assert step_shape(uneven, replace(settings, batch_size=1)).tokens == pytest.approx(100.5, abs=0.5)
