"""A cache never breaks a run, and never serves a row that changes the loss."""

import pytest
import torch
from architectures import ARCHITECTURES, SMALL, text_batch
from torch import nn
from training import losses, make_trainer, moved, tiny_bert, twin, weights
from transformers import BertConfig, BertForSequenceClassification, BertModel, WavLMConfig, WavLMModel

from adaptivefreeze import BottomUp, FreezeCallback, PrefixCache, freeze
from adaptivefreeze.cache import CacheSession
from adaptivefreeze.cache.bypass import Bypass


def train(model, inputs, loss_of, cache=None, steps=6):
    """Train without dropout outside of the frozen units; return the losses."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    with freeze(model, BottomUp(2), eval_frozen=True) as run:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run.freezer.attach_optimizer(optimizer)
        session = None if cache is None else CacheSession(cache, model, run.stack)
        if session is not None:
            session.move(run.mask, passes=4, examples=8)
        seen = []
        model.train()
        for step in range(steps):
            loss = loss_of(model(**inputs(step % 2)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(loss.item())
        if session is not None:
            session.detach()
    return seen


@pytest.mark.parametrize("part", ["from_inputs", "from_boundary", "learn"])
def test_an_exception_of_the_bypass_disables_it(tmp_path, monkeypatch, caplog, part):
    def fails(*args, **kwargs):
        raise IndexError("no such thing")

    def run(cache):
        callback = FreezeCallback(BottomUp(2), cache=cache, eval_frozen=True)
        trainer = make_trainer(tiny_bert(), tmp_path, [callback], num_train_epochs=3)
        trainer.train()
        return trainer, callback

    plain, _ = run(False)
    monkeypatch.setattr(Bypass, part, fails)
    cached, callback = run(True)
    assert "IndexError: no such thing" in callback.cache.stats.disabled_reason
    assert caplog.text.count("Prefix cache disabled") == 1
    assert losses(cached) == losses(plain)
    assert not moved(weights(plain.model), weights(cached.model))


def test_an_exception_of_a_later_step_disables_it(tmp_path, monkeypatch):
    original, calls = Bypass.from_boundary, []

    def fails_late(self, *args):
        calls.append(args)
        if len(calls) == 8:
            raise IndexError("no such thing")
        return original(self, *args)

    monkeypatch.setattr(Bypass, "from_boundary", fails_late)
    callback = FreezeCallback(BottomUp(2), cache=True)
    trainer = make_trainer(tiny_bert(), tmp_path, [callback], num_train_epochs=3)
    trainer.train()
    assert len(losses(trainer)) == 18
    assert callback.cache.stats.disabled_reason == "skipping the prefix failed (IndexError: no such thing)"


class _MeanPooled(BertForSequenceClassification):
    """Pools over all positions, padding included, as ImageGPT does."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **_):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.cross_entropy(self.classifier(hidden.mean(1)), labels)


def test_a_loss_that_reads_padding_gets_rows_with_padding():
    torch.manual_seed(0)
    model = _MeanPooled(BertConfig(**SMALL))
    other, cache = twin(model), PrefixCache()
    plain = train(other, text_batch, lambda loss: loss)
    cached = train(model, text_batch, lambda loss: loss, cache)
    assert cached == plain
    assert not moved(weights(other), weights(model))
    assert cache.stats.disabled_reason is None
    assert cache.stats.hits == 12  # the first batch is stored twice


def test_rows_with_padding_serve_batches_of_several_widths():
    """Each width was learned by itself, and learning one forgot the others."""

    def inputs(step):
        batch, width = text_batch(step), 9 - step
        mask = torch.arange(width) < torch.tensor([[4], [width], [width], [5]])
        return {
            "input_ids": batch["input_ids"][:, :width],
            "attention_mask": mask.long(),
            "labels": batch["labels"],
        }

    torch.manual_seed(0)
    model, cache = _MeanPooled(BertConfig(**SMALL)), PrefixCache()
    plain = train(twin(model), inputs, lambda loss: loss)
    assert train(model, inputs, lambda loss: loss, cache) == plain
    assert cache.stats.disabled_reason is None
    assert cache.stats.hits > 8


def test_a_batch_as_wide_as_the_model_allows_is_checked_without_further_positions():
    """Padding was added beyond the last position embedding, so that rows held padding, for one width each."""
    ids = torch.randint(2, SMALL["vocab_size"], (5, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12) < torch.tensor([[12], [10], [10], [10], [10]])
    labels = torch.tensor([0, 1, 0, 1, 0])

    def inputs(step):
        rows, width = ([0, 1, 2, 3], 12) if step == 0 else ([1, 2, 3, 4], 10)
        batch = {"input_ids": ids * mask, "attention_mask": mask.long()}
        return {"labels": labels[rows], **{name: tensor[rows, :width] for name, tensor in batch.items()}}

    torch.manual_seed(0)
    model, cache = BertForSequenceClassification(BertConfig(**SMALL, max_position_embeddings=12)), PrefixCache()
    plain = train(twin(model), inputs, lambda output: output.loss)
    assert train(model, inputs, lambda output: output.loss, cache) == pytest.approx(plain, rel=1e-6)
    assert cache.stats.disabled_reason is None
    assert (cache.stats.hits, cache.stats.misses) == (19, 5)


class _Whole(BertModel):
    """A tower that is the whole model and computes the loss itself, as HGNetV2 does."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **_):
        hidden = super().forward(input_ids, attention_mask=attention_mask)[0][:, 0]
        return hidden if labels is None else (nn.functional.cross_entropy(hidden, labels), hidden)


def test_a_tower_that_computes_the_loss_gets_the_labels():
    torch.manual_seed(0)
    model = _Whole(BertConfig(**SMALL))
    other, cache = twin(model), PrefixCache()
    plain = train(other, text_batch, lambda output: output[0])
    assert train(model, text_batch, lambda output: output[0], cache) == plain
    assert cache.stats.disabled_reason is None
    assert (cache.stats.hits, cache.stats.misses) == (12, 12)  # the first batch is stored twice, then with padding


class _SkipsABlock(BertModel):
    """Runs the first and the last block only, as Mllama without images skips some."""

    def forward(self, input_ids=None, **kwargs):
        kwargs.pop("labels", None)
        layers = self.encoder.layer
        self.encoder.layer = nn.ModuleList([layers[0], layers[2]])
        try:
            return super().forward(input_ids, **kwargs)
        finally:
            self.encoder.layer = layers


def test_a_skipped_block_does_not_break_the_run():
    torch.manual_seed(0)
    model = _SkipsABlock(BertConfig(**SMALL))
    other, cache = twin(model), PrefixCache()
    plain = train(other, text_batch, lambda output: output[0].square().mean())
    assert train(model, text_batch, lambda output: output[0].square().mean(), cache) == plain
    assert cache.stats.disabled_reason == "its forward pass does not reach block 1"


def test_a_block_may_take_an_argument_named_index_and_pass_a_bias_on():
    """WavLM: block 0 computes the position bias of all blocks."""
    architecture = next(a for a in ARCHITECTURES if a.name == "wavlm")
    torch.manual_seed(0)
    model = WavLMModel(architecture.build().config)
    assert isinstance(model.config, WavLMConfig)
    model.config.mask_time_prob = model.config.mask_feature_prob = 0.0
    other, cache = twin(model), PrefixCache()

    def inputs(seed):
        return {"input_values": architecture.inputs(seed)["input_values"]}

    plain = train(other, inputs, lambda output: output[0].square().mean())
    assert train(model, inputs, lambda output: output[0].square().mean(), cache) == plain
    assert cache.stats.disabled_reason is None
    assert (cache.stats.hits, cache.stats.misses) == (16, 8)


def _pack(step, lengths):
    ids = torch.randint(5, 60, (1, sum(lengths)), generator=torch.Generator().manual_seed(step))
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": ids, "position_ids": positions, "labels": ids % 3, "cu_seq_lens_q": ends}


@pytest.mark.parametrize("lengths", [(4, 5, 3), (7,)], ids=str)
def test_examples_in_one_row_that_attend_to_each_other_share_a_cached_row(lengths):
    """BERT does not read in its positions where the next example begins."""
    model = tiny_bert()
    plain = train(twin(model), lambda step: _pack(step, lengths), lambda output: output.loss)
    cache = PrefixCache()
    assert train(model, lambda step: _pack(step, lengths), lambda output: output.loss, cache) == plain
    assert (cache.stats.disabled_reason, cache.stats.misses, cache.stats.hits) == (None, 2, 4)


def test_packs_without_positions_are_not_cached():
    def inputs(step):
        return {name: value for name, value in _pack(step, (4, 5)).items() if name != "position_ids"}

    cache = PrefixCache()
    losses_seen = train(tiny_bert(), inputs, lambda output: output.loss, cache)
    assert losses_seen == train(tiny_bert(), inputs, lambda output: output.loss)
    assert "packed without position_ids" in cache.stats.disabled_reason
