"""SFTTrainer of TRL: LoRA above a cached prefix, with padded and with packed batches."""

import math

import pytest
import torch
from architectures import ARCHITECTURES
from datasets import Dataset
from training import losses, moved, weights
from transformers import BertTokenizerFast
from trl import SFTConfig, SFTTrainer

from adaptivefreeze import FreezeCallback, lora_above

TEXTS = 24


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    vocabulary = tmp_path_factory.mktemp("words") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    return BertTokenizerFast(str(vocabulary), eos_token="[SEP]")


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 9, (TEXTS,), generator=generator)
    words = [torch.randint(0, 8, (int(length),), generator=generator) for length in lengths]
    return Dataset.from_dict({"text": [" ".join("abcdefgh"[int(i)] for i in word) for word in words]})


@pytest.fixture
def train(tokenizer, texts, tmp_path):
    def run(cache, **settings):
        model = next(a for a in ARCHITECTURES if a.name == "llama").build()
        torch.manual_seed(1)
        callback = FreezeCallback("nothing", cache=cache)
        arguments = {
            "output_dir": str(tmp_path),
            "max_length": 16,
            "num_train_epochs": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 3,
        }
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**{**arguments, **settings}),
            train_dataset=texts,
            processing_class=tokenizer,
            peft_config=lora_above(model, 2, r=2, task_type="CAUSAL_LM"),
            callbacks=[callback],
        )
        trainer.train()
        return trainer, callback

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"packing": True, "packing_strategy": "bfd"},
        {"packing": True, "packing_strategy": "wrapped"},
    ],
    ids=str,
)
def test_in_order_it_is_bit_identical(train, settings):
    settings = {**settings, "train_sampling_strategy": "sequential"}
    plain, _ = train(False, **settings)
    cached, callback = train(True, **settings)
    stats = callback.cache.stats
    assert stats.disabled_reason is None
    assert stats.misses == (12 if settings.get("packing_strategy") == "wrapped" else TEXTS)
    assert stats.hits == 2 * stats.misses
    assert losses(cached) == losses(plain)
    assert not moved(weights(plain.model), weights(cached.model))


@pytest.mark.parametrize("settings", [{}, {"packing": True}], ids=str)
def test_texts_are_found_again_in_other_batches(train, settings):
    """Packed rows are shuffled and joined: a text is found again beside others, at another place."""
    plain, _ = train(False, **settings)
    cached, callback = train(True, **settings)
    stats = callback.cache.stats
    assert (stats.disabled_reason, stats.misses, stats.hits) == (None, TEXTS, 2 * TEXTS)
    for one, other in zip(losses(plain), losses(cached), strict=True):
        assert math.isclose(one, other, rel_tol=1e-5)
