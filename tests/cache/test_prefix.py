"""PrefixCache in a Trainer: it is disabled where it does not help, survives faults, and resumes exactly."""

import logging

import pytest
import torch
from training import BLOCKS, Sentences, losses, make_trainer, moved, tiny_bert, weights
from transformers import TrainerCallback

from adaptivefreeze import BottomUp, FreezeCallback, FreezeMask, PrefixCache, find_blocks, freeze
from adaptivefreeze.cache import CacheSession

IN_ORDER = {"train_sampling_strategy": "sequential", "num_train_epochs": 3}


def train(folder, cache, model=None, policy=None, callbacks=(), **settings):
    callback = FreezeCallback(policy or BottomUp(2), cache=cache, eval_frozen=True)
    trainer = make_trainer(model or tiny_bert(), folder, [callback, *callbacks], **{**IN_ORDER, **settings})
    trainer.train()
    return trainer, callback.cache.stats if callback.cache else None


def test_skipped_units_do_not_run(tmp_path):
    model = tiny_bert()
    ran = []

    class Counts(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            ran.append([0, 0])

    stem = model.bert.embeddings.word_embeddings
    stem.register_forward_pre_hook(lambda *_: ran and ran[-1].__setitem__(0, ran[-1][0] + 1))
    linear = model.bert.encoder.layer[1].output.dense
    linear.register_forward_pre_hook(lambda *_: ran and ran[-1].__setitem__(1, ran[-1][1] + 1))
    train(tmp_path, True, model, callbacks=[Counts()])
    assert ran[0][0] >= 6
    assert ran[0][1] >= 6
    assert ran[1:] == [[0, 0], [0, 0]]


def test_shuffled_epochs_other_batches_and_evaluation_hit(tmp_path):
    _, stats = train(
        tmp_path, True, train_sampling_strategy="random", eval_strategy="epoch", per_device_eval_batch_size=3,
        num_train_epochs=4,
    )  # fmt: skip
    assert (stats.misses, stats.hits) == (24 + 8, 3 * (24 + 8))
    assert stats.seconds_saved > 0
    assert stats.seconds_spent > 0


def test_every_log_line_reports_the_hit_rate(tmp_path):
    trainer, stats = train(tmp_path, True)
    rates = [line["freeze/cache_hit_rate"] for line in trainer.state.log_history]
    assert rates[0] == 0
    assert rates[-1] == stats.hit_rate == pytest.approx(2 / 3)


def test_labels_take_no_part_in_the_key(tmp_path):
    class Relabelled(Sentences):
        def __getitem__(self, index):
            row = self.rows[index]
            return {**row, "labels": torch.where(row["labels"] >= 0, torch.randint(0, 3, (9,)), row["labels"])}

    _, stats = train(tmp_path, True, train_dataset=Relabelled())
    assert stats.misses == 24


def test_inputs_that_change_every_epoch_disable_it(tmp_path, caplog):
    class Masked(Sentences):
        def __getitem__(self, index):
            row = self.rows[index]
            return {**row, "input_ids": row["input_ids"] * (torch.rand(9) > 0.5)}

    trainer, stats = train(tmp_path, True, train_dataset=Masked(), num_train_epochs=5)
    assert "hardly any example is found again" in stats.disabled_reason
    assert stats.misses <= 1.5 * 24
    assert caplog.text.count("Prefix cache disabled") == 1
    assert len(losses(trainer)) == 30


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_train_epochs": 1}, "filling it does not pay"),
        ({"memory": 900}, "900 bytes hold 1 of 24 examples"),
    ],
)
def test_it_is_disabled_where_it_does_not_pay(tmp_path, settings, reason, caplog):
    settings = dict(settings)
    cache = PrefixCache(memory=settings.pop("memory", None))
    _, stats = train(tmp_path, cache, **settings)
    assert reason in stats.disabled_reason
    assert caplog.text.count("Prefix cache disabled") == 1


class MovedByUser(TrainerCallback):
    """Freezes the first `depths[step]` blocks after that step, by `FreezeCallback.move`."""

    def __init__(self, freezing, depths):
        self.freezing, self.depths = freezing, depths

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.depths:
            mask = FreezeMask.first(BLOCKS, self.depths[state.global_step])
            self.freezing.move(mask, "by hand", state)


def train_moved(folder, depths, cache, epochs, start="nothing"):
    freezing = FreezeCallback(start, cache=cache, eval_frozen=True)
    settings = {**IN_ORDER, "num_train_epochs": epochs}
    trainer = make_trainer(tiny_bert(), folder, [freezing, MovedByUser(freezing, depths)], **settings)
    trainer.train()
    return losses(trainer), freezing.cache and freezing.cache.stats


def test_what_does_not_pay_for_a_shallow_prefix_may_pay_for_a_deeper_one(tmp_path, caplog):
    depths = {10: 1, 11: 3}  # with 1.33 and 1.17 passes to go
    cached, stats = train_moved(tmp_path, depths, True, epochs=3)
    assert "filling it does not pay with 1.3 passes over the data left" in caplog.text
    assert (stats.disabled_reason, stats.misses, stats.hits) == (None, 24, 4)
    assert cached == train_moved(tmp_path, depths, False, epochs=3)[0]


def test_rows_dropped_by_thawing_do_not_disable_it(tmp_path):
    depths = {6: 3, 12: 2, 18: 1}
    cached, stats = train_moved(tmp_path, depths, True, epochs=5, start="bottom-up:4")
    assert (stats.disabled_reason, stats.misses, stats.hits) == (None, 4 * 24, 24)
    assert cached == train_moved(tmp_path, depths, False, epochs=5, start="bottom-up:4")[0]


@pytest.mark.parametrize("disk", [False, True])
def test_rows_from_before_a_thaw_are_not_used_after_it(tmp_path, caplog, disk):
    """The fused optimizer, the default of the Trainer, changes no version counter of the weights it updates."""
    depths = {6: 0, 9: 2}
    cache = PrefixCache(disk=tmp_path / "rows" if disk else None)
    cached, stats = train_moved(tmp_path, depths, cache, epochs=4, start="bottom-up:2")
    assert cached == train_moved(tmp_path, depths, False, epochs=4, start="bottom-up:2")[0]
    assert (stats.misses, stats.hits) == (2 * 24, 24 + 12)
    assert "values of a frozen unit changed" not in caplog.text


def test_embeddings_alone_are_not_worth_it(tmp_path):
    _, stats = train(tmp_path, True, policy="modules:embeddings")
    assert (stats.hits, stats.misses) == (0, 0)


def test_over_the_budget_the_rest_is_computed(tmp_path):
    plain, _ = train(tmp_path, False)
    cached, stats = train(tmp_path, PrefixCache(memory=9000))
    assert 0 < stats.rows < 24
    assert stats.refused > 0
    assert stats.memory_bytes <= 9000
    for one, other in zip(losses(plain), losses(cached), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_later_run_uses_the_folder(tmp_path):
    folder = tmp_path / "rows"
    first, one = train(tmp_path, PrefixCache(disk=folder))
    second, two = train(tmp_path, PrefixCache(disk=folder))
    deeper, three = train(tmp_path, PrefixCache(disk=folder), policy=BottomUp(3))
    assert (one.misses, two.misses, three.misses) == (24, 0, 0)
    assert three.carried == 24  # from the shallower depth, not from the bottom
    assert losses(first) == losses(second)
    plain, _ = train(tmp_path, False, policy=BottomUp(3))
    assert losses(deeper) == losses(plain)


def test_rows_of_other_weights_are_never_used(tmp_path):
    folder = tmp_path / "rows"
    train(tmp_path, PrefixCache(disk=folder))
    other, stats = train(tmp_path, PrefixCache(disk=folder), tiny_bert(7))
    plain, _ = train(tmp_path, False, tiny_bert(7))
    assert stats.misses == 24
    assert losses(other) == losses(plain)


@pytest.mark.parametrize("fault", ["read-only", "garbage"])
def test_a_broken_folder_costs_no_step(tmp_path, fault):
    folder = tmp_path / "rows"
    if fault == "read-only":
        (tmp_path / "rows").write_text("no folder")
    else:
        train(tmp_path, PrefixCache(disk=folder))
        for path in folder.glob("*.rows"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
            path.write_bytes(data)
    plain, _ = train(tmp_path, False)
    cached, stats = train(tmp_path, PrefixCache(disk=folder))
    assert stats.misses > 0
    for one, other in zip(losses(plain), losses(cached), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_changed_prefix_weight_never_meets_an_old_row(tmp_path, caplog):
    """Rows are dropped when the weight is written in place or through `tensor.data`."""

    class WritesWeight(TrainerCallback):
        def __init__(self, write):
            self.write = write

        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 12:
                with torch.no_grad():
                    self.write(model.bert.encoder.layer[0].output.dense.weight)

    def behind(weight):
        weight.data.mul_(1.5)  # this write changes no version counter

    for write in (lambda weight: weight.mul_(1.5), behind):
        plain, _ = train(tmp_path, False, callbacks=[WritesWeight(write)])
        caplog.clear()
        callback = FreezeCallback(BottomUp(2), cache=True, eval_frozen=True)
        cached = make_trainer(tiny_bert(), tmp_path, [WritesWeight(write), callback], **IN_ORDER)
        cached.train()
        assert "rows computed from them are dropped" in caplog.text
        assert losses(cached) == losses(plain)


def test_one_cache_serves_several_runs(tmp_path):
    cache = PrefixCache()
    _, first = train(tmp_path, cache)
    _, second = train(tmp_path, cache)
    _, other = train(tmp_path, cache, tiny_bert(7))
    assert (first.misses, second.misses, other.misses) == (24, 0, 24)


def test_killed_and_resumed_equals_never_stopped(tmp_path):
    class Killed(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 9:
                raise KeyboardInterrupt

    settings = {**IN_ORDER, "save_strategy": "steps", "save_steps": 4}

    def make(name, *callbacks):
        return make_trainer(
            tiny_bert(), tmp_path / name, [FreezeCallback(BottomUp(2), cache=True), *callbacks], **settings
        )

    whole = make("whole")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make("interrupted", Killed()).train()
    resumed = make("interrupted")
    resumed.train(resume_from_checkpoint=str(tmp_path / "interrupted" / "checkpoint-8"))
    assert not moved(weights(whole.model), weights(resumed.model))


def test_a_call_that_requests_skipped_outputs_runs_whole():
    model, batch = tiny_bert().eval(), {"input_ids": torch.randint(5, 60, (3, 7))}
    cache = PrefixCache()
    with freeze(model, BottomUp(2)) as run, torch.no_grad():
        plain = model(**batch, output_hidden_states=True)
        session = CacheSession(cache, model, find_blocks(model))
        session.move(run.mask)
        model(**batch)
        again = model(**batch, output_hidden_states=True)
        session.detach()
    assert cache.stats.misses == 3
    assert len(again.hidden_states) == BLOCKS + 1
    assert all(torch.equal(a, b) for a, b in zip(plain.hidden_states, again.hidden_states, strict=True))


def test_dropout_and_stored_passes(tmp_path):
    """Dropout on rows changes training only; stored passes are used in turn, one per epoch."""
    plain, _ = train(tmp_path, True)
    dropped, _ = train(tmp_path, PrefixCache(dropout=0.3))
    assert losses(plain) != losses(dropped)
    _, stats = train(tmp_path, PrefixCache(passes=2), num_train_epochs=4, eval_strategy="epoch")
    assert (stats.misses, stats.hits) == (2 * 24 + 8, 2 * 24 + 3 * 8)


def test_a_mask_can_be_moved_only_while_training(tmp_path):
    callback = FreezeCallback(BottomUp(2), cache=True)
    with pytest.raises(RuntimeError, match="nothing is being trained"):
        callback.move(FreezeMask(BLOCKS), "by hand", None)


def test_the_reason_for_disabling_is_logged_once(tmp_path, caplog):
    from architectures import ARCHITECTURES

    architecture = next(a for a in ARCHITECTURES if a.name == "mixtral")
    model = architecture.build()
    cache = PrefixCache()
    with caplog.at_level(logging.WARNING), freeze(model, BottomUp(2)) as run:
        session = CacheSession(cache, model, run.stack)
        session.move(run.mask, passes=3)
        for step in range(3):
            model(**architecture.inputs(step))
        session.detach()
    assert caplog.text.count("experts share their work") == 1
