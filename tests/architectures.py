"""The architectures that everything is tested on: each built small from its config, with a batch that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from torch import nn

VOCABULARY = 64
LABELS = 3
BATCH, TOKENS = 4, 10


@dataclass(frozen=True)
class Architecture:
    """`build()` gives a model, `inputs()` a batch with labels; `depth` blocks are to be found, in `tower`."""

    name: str
    build: Callable[[], nn.Module]
    depth: int
    inputs: Callable[[], dict[str, torch.Tensor]]
    tower: str | None = None

    def __str__(self) -> str:
        return self.name


def _ids(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (BATCH, TOKENS), generator=generator)
    mask = torch.ones_like(ids)
    for row, cut in enumerate((0, 2, 4, 1)):
        if cut:
            ids[row, -cut:] = 1
            mask[row, -cut:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def token_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Token classification: `labels` of shape (batch, tokens), -100 at padding."""
    batch = _ids(seed)
    labels = batch["input_ids"] % LABELS
    return {**batch, "labels": labels.masked_fill(batch["attention_mask"] == 0, -100)}


def text_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Sequence classification: `labels` of shape (batch,)."""
    batch = _ids(seed)
    return {**batch, "labels": batch["input_ids"][:, 0] % LABELS}


def language_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Language modelling: `labels` are the ids."""
    batch = _ids(seed)
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def image_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """`pixel_values` of shape (batch, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(BATCH, 3, 16, 16, generator=generator),
        "labels": torch.arange(BATCH) % LABELS,
    }


def audio_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """`input_values` of shape (batch, 2000)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_values": torch.randn(BATCH, 2000, generator=generator),
        "labels": torch.arange(BATCH) % LABELS,
    }


def page_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Token classification with a box `bbox` for each token, of shape (batch, tokens, 4)."""
    boxes = torch.arange(4 * BATCH * TOKENS).view(BATCH, TOKENS, 4) % 13
    return {**token_batch(seed), "bbox": boxes.sort(-1).values}


def pair_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Text and image, with the contrastive loss asked for."""
    return {
        **_ids(seed),
        "pixel_values": image_batch(seed)["pixel_values"],
        "return_loss": torch.tensor(True),
    }


SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": LABELS,
    "pad_token_id": 1,
}


def _model(cls: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return getattr(tf, cls)(getattr(tf, config)(**settings))

    return build


def _peft() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = tf.BertForTokenClassification(tf.BertConfig(**SMALL))
    return get_peft_model(model, LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"]))


_DECODER = {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
_GPT = {
    "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "num_labels": LABELS,
    "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
_XLM = {
    "vocab_size": VOCABULARY, "emb_dim": 16, "n_layers": 3, "n_heads": 2, "num_labels": LABELS, "n_langs": 1,
    "max_position_embeddings": 32, "pad_index": 1, "pad_token_id": 1, "bos_index": 2, "eos_index": 3, "unk_index": 4,
    "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2,
    "num_labels": LABELS, "pad_token_id": 1, "eos_token_id": 3, "decoder_start_token_id": 1,
}  # fmt: skip
_BART = {
    "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32,
    "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3, "forced_eos_token_id": None,
}  # fmt: skip
_VISION = {**SMALL, "image_size": 16, "patch_size": 8}
_AUDIO = {
    **SMALL, "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0, "layerdrop": 0.0,
    "classifier_proj_size": 8,
}  # fmt: skip
_CLIP = {
    "text_config": {**SMALL, "max_position_embeddings": 32, "bos_token_id": 2, "eos_token_id": 3},
    "vision_config": {**_VISION, "num_hidden_layers": 2},
    "projection_dim": 8,
}

ARCHITECTURES = (
    Architecture("bert", _model("BertForTokenClassification", "BertConfig", **SMALL), 3, token_batch),
    Architecture("bert-text", _model("BertForSequenceClassification", "BertConfig", **SMALL), 3, text_batch),
    Architecture("roberta", _model("RobertaForTokenClassification", "RobertaConfig", **SMALL), 3, token_batch),
    Architecture("xlm-roberta", _model("XLMRobertaForTokenClassification", "XLMRobertaConfig", **SMALL), 3,
                 token_batch),
    Architecture("camembert", _model("CamembertForTokenClassification", "CamembertConfig", **SMALL), 3, token_batch),
    Architecture(
        "distilbert",
        _model("DistilBertForTokenClassification", "DistilBertConfig", vocab_size=VOCABULARY, dim=16, n_layers=3,
               n_heads=2, hidden_dim=32, num_labels=LABELS, pad_token_id=1),
        3, token_batch,
    ),
    Architecture(
        "deberta-v2",
        _model("DebertaV2ForTokenClassification", "DebertaV2Config", **SMALL, relative_attention=True,
               pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm", conv_kernel_size=3, position_buckets=4),
        3, token_batch,
    ),
    Architecture("deberta", _model("DebertaForTokenClassification", "DebertaConfig", **SMALL, relative_attention=True,
                                   pos_att_type=["p2c", "c2p"]), 3, token_batch),
    Architecture("electra", _model("ElectraForTokenClassification", "ElectraConfig", **SMALL, embedding_size=8), 3,
                 token_batch),
    Architecture("albert", _model("AlbertForTokenClassification", "AlbertConfig", **SMALL, embedding_size=8), 1,
                 token_batch),
    Architecture("modernbert", _model("ModernBertForTokenClassification", "ModernBertConfig", **SMALL,
                                      bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3), 3, token_batch),
    Architecture("mpnet", _model("MPNetForTokenClassification", "MPNetConfig", **SMALL), 3, token_batch),
    Architecture("xlm", _model("XLMForTokenClassification", "XLMConfig", **_XLM), 3, token_batch),
    Architecture("flaubert", _model("FlaubertForTokenClassification", "FlaubertConfig", **_XLM), 3, token_batch),
    Architecture("xlnet", _model("XLNetForTokenClassification", "XLNetConfig", vocab_size=VOCABULARY, d_model=16,
                                 n_layer=3, n_head=2, d_inner=32, num_labels=LABELS, pad_token_id=1), 3, token_batch),
    Architecture(
        "funnel",
        _model("FunnelForTokenClassification", "FunnelConfig", vocab_size=VOCABULARY, block_sizes=[1, 2],
               num_decoder_layers=1, d_model=16, n_head=2, d_head=8, d_inner=32, num_labels=LABELS, pad_token_id=1),
        4, token_batch,
    ),
    Architecture("roformer", _model("RoFormerForTokenClassification", "RoFormerConfig", **SMALL), 3, token_batch),
    Architecture("convbert", _model("ConvBertForTokenClassification", "ConvBertConfig", **SMALL, embedding_size=16,
                                    head_ratio=1), 3, token_batch),
    Architecture("t5-encoder", _model("T5ForTokenClassification", "T5Config", **_T5), 3, token_batch),
    Architecture("t5", _model("T5ForConditionalGeneration", "T5Config", **_T5), 3, language_batch, tower="encoder"),
    Architecture("bart", _model("BartForConditionalGeneration", "BartConfig", **_BART), 3, language_batch,
                 tower="encoder"),
    Architecture("bart-decoder", _model("BartForConditionalGeneration", "BartConfig", **_BART), 2, language_batch,
                 tower="decoder"),
    Architecture("gpt2", _model("GPT2LMHeadModel", "GPT2Config", **_GPT), 3, language_batch),
    Architecture("gpt2-text", _model("GPT2ForTokenClassification", "GPT2Config", **_GPT), 3, token_batch),
    Architecture("opt", _model("OPTForCausalLM", "OPTConfig", **{**_DECODER, "ffn_dim": 32}), 3, language_batch),
    Architecture("llama", _model("LlamaForCausalLM", "LlamaConfig", **_DECODER), 3, language_batch),
    Architecture("qwen3", _model("Qwen3ForCausalLM", "Qwen3Config", **_DECODER), 3, language_batch),
    Architecture("gemma2", _model("Gemma2ForCausalLM", "Gemma2Config", **_DECODER), 3, language_batch),
    Architecture("mixtral", _model("MixtralForCausalLM", "MixtralConfig", **_DECODER, num_local_experts=4,
                                   num_experts_per_tok=2), 3, language_batch),
    Architecture("vit", _model("ViTForImageClassification", "ViTConfig", **_VISION), 3, image_batch),
    Architecture("dinov2", _model("Dinov2ForImageClassification", "Dinov2Config", **_VISION), 3, image_batch),
    Architecture("wav2vec2", _model("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", **_AUDIO), 3, audio_batch),
    Architecture("wav2vec2-stable", _model("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", **_AUDIO,
                                           do_stable_layer_norm=True, feat_extract_norm="layer"), 3, audio_batch),
    Architecture("clip-text", _model("CLIPModel", "CLIPConfig", **_CLIP), 3, pair_batch, tower="text_model"),
    Architecture("clip-vision", _model("CLIPModel", "CLIPConfig", **_CLIP), 2, pair_batch, tower="vision_model"),
    Architecture("peft-bert", _peft, 3, token_batch),
    Architecture("squeezebert", _model("SqueezeBertForTokenClassification", "SqueezeBertConfig",
                                       **{**SMALL, "num_attention_heads": 4}, embedding_size=16), 3, token_batch),
    Architecture("bros", _model("BrosForTokenClassification", "BrosConfig", **{**SMALL, "hidden_size": 64}), 3,
                 page_batch),
    Architecture("longformer", _model("LongformerForTokenClassification", "LongformerConfig", **SMALL,
                                      attention_window=4, max_position_embeddings=32), 3, token_batch),
    Architecture("bloom", _model("BloomForCausalLM", "BloomConfig", vocab_size=VOCABULARY, hidden_size=16, n_layer=3,
                                 n_head=2, pad_token_id=1, bos_token_id=2, eos_token_id=3), 3, language_batch),
    Architecture("openai-gpt", _model("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", **_GPT), 3, language_batch),
    Architecture("zamba2", _model("Zamba2ForCausalLM", "Zamba2Config", **{**_DECODER, "num_hidden_layers": 4},
                                  layers_block_type=["mamba", "hybrid"] * 2, mamba_d_state=8, n_mamba_heads=4,
                                  mamba_headdim=8, mamba_ngroups=1, adapter_rank=4, use_mamba_kernels=False,
                                  attention_head_dim=16, chunk_size=8), 4, language_batch),
    Architecture("resnet", _model("ResNetForImageClassification", "ResNetConfig", embedding_size=8,
                                  hidden_sizes=[8, 16, 16], depths=[1, 1, 1], layer_type="basic",
                                  num_labels=LABELS), 3, image_batch),
    Architecture("wavlm", _model("WavLMForSequenceClassification", "WavLMConfig", **_AUDIO), 3, audio_batch),
)  # fmt: skip
