"""Data sieving: which examples an epoch trains, how much they count, and that nothing else changes."""

import contextlib
import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import RandomSampler
from training import Sentences, losses, make_trainer, moved, tiny_bert, weights
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback

from adaptivefreeze import FreezeCallback, PrefixCache, RequestError, freeze, parse_policy
from adaptivefreeze.trainer.data_sieve import DataSieve, SievedSampler
from adaptivefreeze.trainer.example_losses import ExampleLosses

EPOCHS = 4


def sieve(spec="nothing+sieve:0.5,until=1", examples=4, epochs=10**6, seed=0):
    return DataSieve(parse_policy(spec), examples=examples, epochs=epochs, seed=seed)


def scored(losses, spec="nothing+sieve:0.5,until=1", **settings):
    found = sieve(spec, len(losses), **settings)
    found.record(torch.arange(len(losses)), torch.tensor(losses))
    return found


def counts(found):
    return found.weights(torch.arange(found.examples)).tolist()


# The rule


def test_half_of_the_examples_below_the_mean_are_left_out_and_the_others_count_twice():
    found = scored([0.1, 0.2, 0.3, 0.4, 9.0, 8.0])  # the mean is 3
    found.begin_epoch(1)
    assert sorted(counts(found)[:4]) == [0, 0, 2, 2]
    assert counts(found)[4:] == [1, 1]
    assert (found.kept, found.skipped) == (4, 2)


def test_the_first_epoch_and_the_last_ones_use_everything():
    found = sieve("nothing+sieve:0.5", examples=4, epochs=10)
    kept = []
    for epoch in range(10):
        found.begin_epoch(epoch)
        kept.append(found.kept)
        found.record(torch.arange(4), torch.tensor([0.1, 0.2, 1.0, 2.0]))
    assert kept == [4, 3, 3, 3, 3, 3, 3, 3, 4, 4], "until is 0.875 of 10 epochs: the first 8"


def test_an_example_without_a_finite_loss_is_kept():
    found = scored([0.1, 0.2, math.nan, math.inf, 5.0])
    found.begin_epoch(1)
    assert counts(found)[2:] == [1, 1, 1]


def test_equal_losses_leave_nothing_out():
    found = scored([0.5] * 4)
    found.begin_epoch(1)
    assert counts(found) == [1] * 4


def test_the_choice_depends_on_the_seed_and_the_epoch_alone():
    def chosen(seed, epoch):
        found = scored([0.1] * 20 + [9.0], seed=seed)
        found.begin_epoch(epoch)
        return counts(found)

    torch.manual_seed(0)
    first = chosen(0, 1)
    torch.manual_seed(1)
    assert chosen(0, 1) == first
    assert chosen(0, 2) != first
    assert chosen(1, 1) != first


def test_the_blind_control_leaves_out_as_many_examples_whatever_their_loss():
    values = [0.1] * 12 + [9.0] * 8
    seeing, blind = scored(values), scored(values, "nothing+sieve:0.5,until=1,blind=true")
    left_out = torch.zeros(20)
    for epoch in range(1, 200):
        seeing.begin_epoch(epoch)
        blind.begin_epoch(epoch)
        assert blind.kept == seeing.kept == 14
        left_out += torch.tensor(counts(blind)) == 0
    share = left_out / 199
    assert share.min() > 0.15 < share.max() < 0.45, "6 of 20 are left out, each with the same probability"


def test_an_epoch_that_would_not_fill_a_batch_uses_everything():
    found = scored([0.1, 0.2, 0.3, 9.0])
    found.begin_epoch(1, fewest=4)
    assert found.kept == 4


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.6, 0.9])
def test_the_expected_gradient_of_an_epoch_is_that_of_all_examples(share):
    """Exactly, over all ways to choose: 5 of 7 examples are learnt, also where 1 - R of 5 is no whole number."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    model = nn.Linear(3, 3)
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 8.0, 9.0]

    def gradient(counted):
        model.zero_grad()
        each = nn.functional.cross_entropy(model(inputs), labels, reduction="none")
        (torch.tensor(counted) * each).sum().backward()
        return model.weight.grad.clone()

    found = scored(scores, f"nothing+sieve:{share},until=1")
    draws = {}
    for epoch in itertools.count(1):
        found.begin_epoch(epoch)
        draws.setdefault(tuple(counts(found)))
        kept = sum(c > 0 for c in counts(found)) - 2
        if len(draws) == math.comb(5, kept):  # every choice has been drawn once
            break
    assert kept == math.ceil((1 - share) * 5 - 1e-9)
    expected = sum(gradient(draw) for draw in draws) / len(draws)
    torch.testing.assert_close(expected, gradient([1.0] * 7))


def test_every_choice_is_as_likely():
    found, left_out = scored([0.1, 0.2, 0.3, 0.4, 9.0, 8.0]), torch.zeros(6)
    for epoch in range(1, 2001):
        found.begin_epoch(epoch)
        left_out += torch.tensor(counts(found)) == 0
    assert left_out[4:].tolist() == [0, 0]
    assert ((left_out[:4] / 2000 - 0.5).abs() < 0.05).all()


# Losses of examples


def classifier(labels=3, problem=None):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=labels, problem_type=problem,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def causal():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32))


MODELS = {
    "classes of texts": (classifier, lambda rows: rows["labels"][:, 0]),
    "classes of tokens": (tiny_bert, lambda rows: rows["labels"]),
    "next tokens": (causal, lambda rows: rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)),
}


@pytest.mark.parametrize("items", [False, True], ids=["mean of the batch", "mean of the step"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_weighted_loss_is_that_of_repeated_labels(kind, items):
    """Weights 0, 1 and 2: the loss is the sum with each example left out, once and twice, over the number of labels."""
    make, label = MODELS[kind]
    model = make().eval()
    data = Sentences(4)
    rows = {name: torch.stack([row[name] for row in data.rows]) for name in data[0]}
    rows["labels"] = label(rows)
    number = rows["labels"].ne(-100)
    number = int((number[:, 1:] if kind == "next tokens" else number).sum()) + 10 if items else None

    def loss_of(chosen):
        return model(**{name: value[chosen] for name, value in rows.items()}).loss

    each, labelled = [], []
    for index in range(4):
        each.append(loss_of([index]))
        target = rows["labels"][index]
        labelled.append(int((target[1:] if kind == "next tokens" else target).ne(-100).sum()))
    outputs = model(**rows)
    total = sum(labelled)
    plain = outputs.loss * total / number if items else outputs.loss
    counted = torch.tensor([0.0, 1.0, 2.0, 1.0])
    loss, found = ExampleLosses("this").weigh(plain, outputs, rows["labels"], counted, number)
    expected = sum(c * n * value for c, n, value in zip(counted, labelled, each, strict=True)) / (number or total)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.stack(each).detach())
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("per_step", [False, True])
def test_a_step_of_one_batch_does_not_decide_what_the_mean_is_over(per_step):
    """Its number of labels is that of the batch. A run that is resumed in the last step of an epoch begins with it."""
    model, data = tiny_bert(), Sentences(4)
    rows = {name: torch.stack([row[name] for row in data.rows]) for name in data[0]}
    outputs, labels = model(**rows), rows["labels"]
    number = int(labels.ne(-100).sum())
    both = 3 * number if per_step else number
    found = ExampleLosses("this")
    found.weigh(outputs.loss, outputs, labels, torch.ones(4))
    loss, _ = found.weigh(outputs.loss * number / both, outputs, labels, torch.full((4,), 2.0), 3 * number)
    torch.testing.assert_close(loss, 2 * outputs.loss * number / both)


def test_with_weights_of_one_the_loss_is_the_same_object():
    model, data = tiny_bert(), Sentences(4)
    rows = {name: torch.stack([row[name] for row in data.rows]) for name in data[0]}
    outputs = model(**rows)
    loss, _ = ExampleLosses("this").weigh(outputs.loss, outputs, rows["labels"], torch.ones(4))
    assert loss is outputs.loss


# In a Trainer


class Steps(TrainerCallback):
    """Records the learning rate and the examples of each step."""

    def __init__(self):
        self.rates, self.epochs = [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, **kwargs):
        self.epochs.append(state.epoch)


def train(folder, policy, callbacks=(), seed=0, cache=False, **settings):
    callback = FreezeCallback(policy, cache=cache)
    trainer = make_trainer(tiny_bert(seed), folder, [callback, *callbacks], **{"num_train_epochs": EPOCHS, **settings})
    trainer.train()
    return trainer, callback


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"dataloader_drop_last": True}], ids=str)
def test_a_share_of_zero_changes_nothing(tmp_path, settings):
    without, _ = train(tmp_path, "bottom-up:2", **settings)
    with_sieve, callback = train(tmp_path, "bottom-up:2+sieve:0", **settings)
    assert losses(with_sieve) == losses(without)
    assert not moved(weights(with_sieve.model), weights(without.model))
    assert callback.summary().examples_skipped == 0
    assert len(callback.timeline) == 1


def test_what_a_run_leaves_out_is_what_it_says(tmp_path):
    steps = Steps()
    trainer, callback = train(tmp_path, "nothing+sieve:0.5,until=1", [steps])
    reasons = [change.reason for change in callback.timeline]
    left_out = [int(reason.split("leaves out ")[1].split()[0]) for reason in reasons[1:]]
    assert len(left_out) == EPOCHS - 1, "all but the first"
    assert all(3 <= count <= 12 for count in left_out)
    assert reasons[1] == f"epoch 2 leaves out {left_out[0]} of 24 examples"
    per_epoch = [6] + [math.ceil((24 - count) / 4) for count in left_out]
    assert trainer.state.global_step == sum(per_epoch) < 24
    assert [change.step for change in callback.timeline] == [0, *itertools.accumulate(per_epoch[:-1])]
    assert trainer.state.epoch == EPOCHS
    assert callback.log_values()["freeze/examples_skipped"] == sum(left_out)
    assert trainer.state.log_history[-1]["freeze/examples_skipped"] == sum(left_out)
    assert callback.summary().examples_skipped == sum(left_out)
    assert f"Data: {sum(left_out)} examples left out" in str(callback.summary())
    # The schedule is where it would be after as many epochs, and it ends with the run.
    ends = [index for index, epoch in enumerate(steps.epochs) if epoch == int(epoch)]
    assert [steps.epochs[index] for index in ends] == [1, 2, 3, 4]
    rates = [*steps.rates, 0.0]
    for epoch, index in enumerate(ends, start=1):
        assert rates[index + 1] == pytest.approx(1e-2 * (1 - epoch / EPOCHS), abs=1e-9)


def test_accumulation_ends_with_the_epoch(tmp_path):
    """No gradient of one epoch is left for the next, whatever the number of its batches."""
    seen = []

    class Gradients(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            seen.append(any(p.grad is not None for p in model.parameters()))

    trainer, callback = train(
        tmp_path, "nothing+sieve:0.5,until=1", [Gradients()], gradient_accumulation_steps=2,
        per_device_train_batch_size=3,
    )  # fmt: skip
    assert callback.summary().examples_skipped > 0
    assert not any(seen)
    assert trainer.state.epoch == EPOCHS


def test_the_trained_examples_are_those_that_are_kept(tmp_path):
    """With workers, the batches are those of the sampler, and each example gets its own loss."""
    data = Sentences()
    rows = {tuple(row["input_ids"].tolist()): index for index, row in enumerate(data.rows)}
    batches, order = [], []

    class Watching(Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            batches.append([rows[tuple(ids)] for ids in inputs["input_ids"].tolist()])
            loss = super().training_step(model, inputs, *args, **kwargs)
            order.append(sieved(self)._sieve.order)
            return loss

    def sieved(trainer):
        return next(c for c in trainer.callback_handler.callbacks if isinstance(c, FreezeCallback))

    train(
        tmp_path, "nothing+sieve:0.5,until=1", train_dataset=data, cls=Watching, dataloader_num_workers=2,
        num_train_epochs=2,
    )  # fmt: skip
    assert list(itertools.chain(*batches[:6])) == order[0]
    assert list(itertools.chain(*batches[6:])) == order[-1]
    assert len(order[-1]) < 24 == len(order[0])


@pytest.mark.parametrize("policy", ["bottom-up:2+sieve:0.5,until=1", "nothing+sieve:0.5,until=1,blind=true"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("cut", [7, 10, 12, 14])
def test_resumed_equals_never_stopped(tmp_path, policy, accumulation, cut):
    settings = {
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 4 // accumulation,
        "save_strategy": "steps",
        "save_steps": 1,
    }

    class Killed(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == cut:
                raise KeyboardInterrupt

    whole, reference = train(tmp_path / "whole", policy, **settings)
    assert whole.state.global_step > cut
    with contextlib.suppress(KeyboardInterrupt):
        train(tmp_path / "killed", policy, [Killed()], **settings)
    callback = FreezeCallback(policy)
    resumed = make_trainer(tiny_bert(1), tmp_path / "killed", [callback], num_train_epochs=EPOCHS, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{cut}"))
    assert callback.timeline.to_json() == reference.timeline.to_json()
    assert losses(resumed) == losses(whole)
    assert resumed.state.epoch == whole.state.epoch
    assert callback.summary().examples_skipped == reference.summary().examples_skipped
    assert not moved(weights(whole.model), weights(resumed.model))


def test_a_run_that_has_ended_trains_no_further(tmp_path):
    settings = {"save_strategy": "epoch"}
    whole, reference = train(tmp_path, "nothing+sieve:0.5,until=1", **settings)
    last = tmp_path / f"checkpoint-{whole.state.global_step}"
    callback = FreezeCallback("nothing+sieve:0.5,until=1")
    again = make_trainer(tiny_bert(1), tmp_path, [callback], num_train_epochs=EPOCHS, **settings)
    again.train(resume_from_checkpoint=str(last))
    assert again.state.global_step == whole.state.global_step
    assert callback.timeline.to_json() == reference.timeline.to_json()
    assert not moved(weights(whole.model), weights(again.model))


def test_the_cache_serves_the_examples_that_are_kept(tmp_path):
    """The same examples are left out, the trained weights agree to rounding, and every later lookup is a hit."""
    spec = "bottom-up:2+sieve:0.5,until=1"

    def run(folder, cache):
        callback = FreezeCallback(spec, cache=cache, eval_frozen=True)
        trainer = make_trainer(tiny_bert(), folder, [callback], num_train_epochs=EPOCHS)
        trainer.train()
        return trainer, callback

    plain, uncached = run(tmp_path, False)
    served, cached = run(tmp_path, PrefixCache())
    assert cached.timeline.to_json() == uncached.timeline.to_json()
    stats, skipped = cached.cache.stats, cached.summary().examples_skipped
    assert (stats.misses, stats.hits) == (24, 24 * (EPOCHS - 1) - skipped)
    torch.testing.assert_close(weights(served.model), weights(plain.model), rtol=1e-3, atol=1e-5)


def test_it_goes_with_a_side_network(tmp_path):
    trainer, callback = train(tmp_path, "side:32,layers=1+sieve:0.5,until=1", cache=True)
    assert callback.summary().examples_skipped > 0
    assert callback.cache.stats.misses == 24
    assert trainer.state.epoch == EPOCHS


def test_it_goes_with_a_policy_that_sets_the_pace(tmp_path):
    trainer, callback = train(tmp_path, "budget:0.5,clock=false+sieve:0.5,until=1", num_train_epochs=6)
    assert trainer.state.epoch < 6
    assert callback.summary().examples_skipped > 0


# What it refuses


def squared(outputs, labels, num_items_in_batch=None):
    return outputs["logits"].square().mean()


REFUSALS = {
    "compute_loss_func": ({}, lambda trainer: setattr(trainer, "compute_loss_func", squared)),
    "label smoothing": ({"label_smoothing_factor": 0.1}, None),
    "dataloader_in_order=True": ({"dataloader_in_order": False, "dataloader_num_workers": 1}, None),
    "in one process, on one device": ({}, lambda trainer: setattr(trainer.args, "_n_gpu", 2)),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_a_trainer_that_cannot_leave_out_examples_is_refused_before_the_first_step(tmp_path, sentence):
    settings, change = REFUSALS[sentence]
    model = tiny_bert()
    trainer = make_trainer(model, tmp_path, [FreezeCallback("nothing+sieve:0.5")], **settings)
    if change is not None:
        change(trainer)
    before = weights(model)
    with pytest.raises(RequestError, match=f"leaves out training examples, which does not work here: .*{sentence}"):
        trainer.train()
    assert not moved(before, weights(model))
    assert "compute_loss" not in vars(trainer)


def test_a_callback_that_comes_late_is_refused(tmp_path):
    trainer = make_trainer(tiny_bert(), tmp_path)
    trainer.add_callback(FreezeCallback("nothing+sieve:0.5"))
    with pytest.raises(RequestError, match=r"pass the FreezeCallback to Trainer\(callbacks=\[...\]\)"):
        trainer.train()


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from Sentences().rows


def test_a_stream_is_refused(tmp_path):
    trainer = make_trainer(
        tiny_bert(), tmp_path, [FreezeCallback("nothing+sieve:0.5")], train_dataset=Stream(), max_steps=4
    )
    with pytest.raises(RequestError, match="needs training data with a length"):
        trainer.train()


def test_a_sampler_that_repeats_examples_is_refused(tmp_path):
    class Repeating(Trainer):
        def _get_train_sampler(self, *args):
            return RandomSampler(self.train_dataset, replacement=True)

    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("nothing+sieve:0.5")], cls=Repeating)
    with pytest.raises(RequestError, match="a sampler that yields each of the 24 training examples once"):
        trainer.train()


class Texts(Sentences):
    """A number, or several classes, for each text."""

    def __init__(self, labels):
        super().__init__()
        for row, label in zip(self.rows, labels, strict=True):
            row["labels"] = label


@pytest.mark.parametrize(
    ("labels", "model", "sentence"),
    [
        (torch.rand(24), lambda: classifier(1), "not one class for each text or token"),
        (torch.rand(24, 3).round(), lambda: classifier(3), "not one class for each text or token"),
    ],
    ids=["regression", "several classes"],
)
def test_another_loss_is_refused_before_the_first_step(tmp_path, labels, model, sentence):
    trainer = make_trainer(model(), tmp_path, [FreezeCallback("nothing+sieve:0.5")], train_dataset=Texts(labels))
    before = weights(trainer.model)
    with pytest.raises(RequestError, match=f"needs the loss of each example, and .*{sentence}"):
        trainer.train()
    assert not moved(before, weights(trainer.model))


def test_a_loss_that_is_no_cross_entropy_is_refused(tmp_path):
    class Doubled(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
            return (2 * loss, outputs) if return_outputs else 2 * loss

    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("nothing+sieve:0.5")], cls=Doubled)
    with pytest.raises(RequestError, match="the loss of this model is not the mean cross-entropy of its labels"):
        trainer.train()


def test_rows_that_hold_several_examples_are_refused(tmp_path):
    trainer = make_trainer(tiny_bert(), tmp_path, [FreezeCallback("nothing+sieve:0.5")], per_device_train_batch_size=2)
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: {k: v.flatten(0, 1)[None] for k, v in collate(rows).items()}
    with pytest.raises(RequestError, match="the data collator makes 1 rows of 2 examples"):
        trainer.train()


def test_a_plain_loop_is_refused():
    with pytest.raises(RequestError, match="works in a Trainer only"):
        freeze(tiny_bert(), "nothing+sieve:0.5")


def test_other_data_after_a_resume_is_refused(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 4}
    train(tmp_path, "nothing+sieve:0.5", **settings)
    trainer = make_trainer(
        tiny_bert(), tmp_path, [FreezeCallback("nothing+sieve:0.5")], train_dataset=Sentences(30),
        num_train_epochs=EPOCHS, **settings,
    )  # fmt: skip
    with pytest.raises(RequestError, match="written with 24 training examples, and there are 30"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_sampler_forwards_the_epoch_and_keeps_its_length():
    class Numbered(list):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    inner, found = Numbered(range(6)), scored([0.1, 0.2, 0.3, 0.4, 9.0, 8.0])
    found.begin_epoch(1)
    sampler = SievedSampler(inner, found)
    sampler.set_epoch(3)
    assert inner.epoch == 3
    assert len(sampler) == 6
    assert list(sampler) == found.order == [i for i in range(6) if counts(found)[i]]
