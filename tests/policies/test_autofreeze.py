"""AutoFreeze decides as a few independent lines do on recorded gradients."""

import numpy as np
import pytest
import torch
from training import Sentences, make_trainer, tiny_bert
from transformers import DistilBertConfig, DistilBertForTokenClassification, Trainer, TrainerCallback

from adaptivefreeze import AutoFreeze, FreezeCallback, FreezeMask, RequestError


def tiny_distilbert(seed):
    torch.manual_seed(seed)
    return DistilBertForTokenClassification(
        DistilBertConfig(vocab_size=64, dim=16, n_layers=7, n_heads=2, hidden_dim=32, num_labels=3)
    )


MODELS = {
    "bert": (lambda seed: tiny_bert(seed, blocks=6), "bert.encoder.layer."),
    "distilbert": (tiny_distilbert, "distilbert.transformer.layer."),
}


class Recorded(Trainer):
    """Sums the raw gradients of each block over an interval, by itself, straight after backward."""

    def training_step(self, model, *args, **kwargs):
        loss = super().training_step(model, *args, **kwargs)
        self.raw = {n: p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}
        return loss


class Sums(TrainerCallback):
    def __init__(self, ends):
        self.ends, self.sums, self.intervals = ends, {}, []

    def on_optimizer_step(self, args, state, control, **kwargs):
        for name, value in self.trainer.raw.items():
            self.sums[name] = self.sums.get(name, 0) + value
        if state.global_step + 1 in self.ends:
            self.intervals.append(self.sums)
            self.sums = {}


def reference(intervals, prefix, blocks, percentile):
    """First block to train after each interval but the first."""
    first, before, firsts = 0, None, []
    for sums in intervals:
        now = [sum(np.abs(v).sum() for n, v in sums.items() if n.startswith(f"{prefix}{i}.")) for i in range(blocks)]
        if before is not None:
            eta = [abs(before[i] - now[i]) / before[i] for i in range(first, blocks)]
            first += int(np.argmax(np.array(eta) >= np.percentile(eta, percentile)))
            firsts.append(first)
        before = now
    return firsts


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_decides_as_a_few_lines_do(tmp_path, model, seed):
    make, prefix = MODELS[model]
    callback = FreezeCallback(AutoFreeze(70))
    ends = [1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 22, 23]  # 24 steps, 4 epochs, 20 intervals
    sums = Sums(set(ends))
    trainer = make_trainer(
        make(seed), tmp_path, [callback, sums], cls=Recorded, seed=seed, num_train_epochs=4, max_grad_norm=0.1
    )
    sums.trainer = trainer
    trainer.train()
    blocks = callback.stack.depth
    firsts = reference(sums.intervals, prefix, blocks, 70)
    changes = list(callback.timeline)
    assert [change.step for change in changes] == [0, *ends[1:]]
    assert [change.mask for change in changes[1:]] == [
        FreezeMask.first(blocks, k) if k else FreezeMask(blocks) for k in firsts
    ]
    assert 0 < firsts[-1] <= blocks - 1
    assert changes[1].reason.startswith("η = [")
    assert ", threshold " in changes[1].reason


def without_dropout(blocks=6):
    model = tiny_bert(blocks=blocks)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = 0.0
    return model


class MeanLoss(Trainer):
    """Takes the mean over micro-batches: this model's loss does not know how many tokens the whole batch has."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False


def test_accumulation_of_four_decides_as_one_batch(tmp_path):
    data = Sentences(64)
    for row in data.rows:  # as many tokens in each, so that the mean of means is the mean
        row["attention_mask"][:] = 1
        row["labels"] = row["input_ids"] % 3
    masks = []
    for size, accumulation in ((16, 1), (4, 4)):
        callback = FreezeCallback(AutoFreeze(90, intervals=4))
        make_trainer(
            without_dropout(),
            tmp_path,
            [callback],
            cls=MeanLoss,
            train_dataset=data,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=4,
        ).train()
        masks.append([(change.step, change.mask) for change in callback.timeline])
    assert masks[0] == masks[1]
    assert len({mask for _, mask in masks[0]}) > 2


@pytest.mark.parametrize("percentile", [0, 101, -1, "half", True])
def test_a_wrong_percentile_is_one_sentence(percentile):
    with pytest.raises(RequestError, match="autofreeze: percentile must be a number above 0 up to 100, not"):
        AutoFreeze(percentile)


def test_wrong_intervals_are_one_sentence():
    with pytest.raises(RequestError, match="autofreeze: intervals must be a number above 0, not 0"):
        AutoFreeze(intervals=0)
