"""Models with an encoder and a decoder: a policy that freezes from the bottom freezes the encoder."""

import pytest
import torch
from training import make_trainer, moved, weights
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from adaptivefreeze import FreezeCallback, RequestError, freeze


def bart():
    torch.manual_seed(0)
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(
        vocab_size=64, d_model=16, encoder_layers=3, decoder_layers=2, max_position_embeddings=32, **sizes
    )
    return BartForConditionalGeneration(config)


def t5():
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=3, num_decoder_layers=2, num_heads=2)
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


class Translations(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        ids = torch.randint(5, 60, (7,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "attention_mask": torch.ones(7, dtype=torch.long), "labels": ids.flip(0)}


@pytest.mark.parametrize("build", [bart, t5])
@pytest.mark.parametrize("policy", ["bottom-up:2", "validation", "nothing"])
def test_the_encoder_is_frozen_by_default_and_named(tmp_path, caplog, build, policy):
    model = build()
    before, name = weights(model), type(model).__name__
    callback = FreezeCallback(policy, cache=True)
    trainer = make_trainer(model, tmp_path, [callback], train_dataset=Translations(), eval_strategy="epoch")
    trainer.eval_dataset = Translations()
    trainer.train()
    tower = "model.encoder" if build is bart else "encoder"
    assert callback.stack.tower == tower
    assert caplog.text.count(f"{name}: {policy} freezes blocks of its encoder, {tower}.") == 1
    if policy == "bottom-up:2":
        assert callback.cache.stats.hit_rate > 0.4
        assert moved(before, weights(model)) == set(before) - callback.stack.frozen(callback.mask)


@pytest.mark.parametrize("policy", ["top-down:1", "interleaved:2"])
def test_other_policies_have_to_name_a_tower(policy):
    with pytest.raises(RequestError, match=r"several towers: set tower to one of model.decoder, model.encoder\."):
        freeze(bart(), policy)
    with freeze(bart(), policy, tower="decoder") as run:
        assert run.stack.tower == "model.decoder"
