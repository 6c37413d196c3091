"""A frozen vision tower in LLaVA: the cache serves the hidden states that the model reads from it."""

import pytest
import torch
from torch.utils.data import Dataset
from training import losses, make_trainer, moved, weights
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.utils import output_capturing

from adaptivefreeze import FreezeCallback

pytestmark = pytest.mark.skipif(
    not hasattr(output_capturing, "select_hidden_states"),
    reason="this version of transformers requests the hidden states of all blocks of a vision tower",
)
IMAGE = 60


class Images(Dataset):
    """`count` images of 4 patches, each with 6 tokens of text."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.rows = []
        for _ in range(count):
            ids = torch.randint(5, 50, (10,), generator=generator)
            ids[1:5] = IMAGE
            self.rows.append(
                {
                    "input_ids": ids,
                    "attention_mask": torch.ones_like(ids),
                    "labels": ids.masked_fill(ids == IMAGE, -100),
                    "pixel_values": torch.randn(3, 16, 16, generator=generator),
                }
            )

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def tiny_llava(layer):
    """A LLaVA whose projector reads hidden state `layer` of a vision tower of 3 blocks."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    vision = CLIPVisionConfig(**shape, image_size=16, patch_size=8)
    text = LlamaConfig(**shape, vocab_size=64, num_key_value_heads=1, pad_token_id=1)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=layer)
    )


def train(folder, layer, policy, cache):
    model = tiny_llava(layer)
    if policy == "nothing":
        model.model.vision_tower.requires_grad_(False)
    callback = FreezeCallback(policy, tower="model.vision_tower", cache=cache)
    trainer = make_trainer(
        model, folder, [callback], train_dataset=Images(16, 0), num_train_epochs=3, train_sampling_strategy="sequential"
    )
    trainer.eval_dataset = Images(8, 1)
    trainer.train()
    return trainer, callback


@pytest.mark.parametrize("policy", ["bottom-up:3", "bottom-up:2", "nothing"])
@pytest.mark.parametrize("layer", [-2, -1, 1, [-3, -2]], ids=str)
def test_cached_equals_uncached(layer, policy, tmp_path):
    plain, _ = train(tmp_path, layer, policy, False)
    cached, callback = train(tmp_path, layer, policy, True)
    stats = callback.cache.stats
    assert (stats.disabled_reason, stats.misses, stats.hits) == (None, 16, 32)
    assert losses(cached) == losses(plain)
    assert not moved(weights(plain.model), weights(cached.model))
    assert cached.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]


def test_blocks_below_the_hidden_state_do_not_run(tmp_path):
    ran = []
    model = tiny_llava(-2)
    for index, block in enumerate(model.model.vision_tower.encoder.layers):
        block.mlp.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    callback = FreezeCallback("bottom-up:3", tower="model.vision_tower", cache=True)
    trainer = make_trainer(model, tmp_path, [callback], train_dataset=Images(4, 0), num_train_epochs=9)
    trainer.train()
    assert callback.cache.stats.hits == 8 * 4
    assert ran.count(0) == ran.count(1) < 9
    assert ran.count(2) >= 9  # its output is not read, but the tower computes it


def test_the_output_of_the_embeddings_cannot_be_skipped(tmp_path):
    trainer, callback = train(tmp_path, [0, -1], "bottom-up:3", True)
    assert callback.cache.stats.disabled_reason == "the output of its embeddings is requested"
    assert losses(trainer) == losses(train(tmp_path, [0, -1], "bottom-up:3", False)[0])
