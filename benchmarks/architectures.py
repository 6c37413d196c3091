"""Freezing and the prefix cache on every architecture of the installed transformers, each built as small as it can be.

    python benchmarks/architectures.py [--heads token-classification …] [--only REGEX] [--output FILE.md]

For each class that `AutoModelFor…` knows, in a process of its own with a time limit:

1. **built**: the class from its default configuration, shrunk, and a batch that gives a finite loss.
2. **frozen**: `find_blocks` names the units; every parameter belongs to exactly one unit, the embeddings are not empty;
   with the embeddings and the first block frozen, two AdamW steps change the same parameters to the same bits as
   `requires_grad` flags set by hand.
3. **served**: four epochs with the prefix cache: served with losses equal to those of the uncached run, or disabled
   with a reason. A model whose cache is disabled because of padding is tried again with a batch without padding.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import logging
import multiprocessing
import platform
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PrinterCallback, Trainer, TrainingArguments, default_data_collator
from transformers.models.auto import modeling_auto

from adaptivefreeze import BlockStack, BottomUp, FreezeCallback, FreezeMask, Freezer, RequestError, find_blocks

HEADS = {
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "audio-classification": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
}
LIMIT_SECONDS = 120
LARGEST = 30_000_000  # parameters
VOCABULARY, LABELS, BATCH, TOKENS = 96, 3, 4, 12

# What a configuration field is set to, by its name. Fields that are absent from a class are skipped.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32, "width": 32, "embed_dim": 32,
    "embedding_size": 32, "word_embed_proj_dim": 32, "attention_hidden_size": 32, "moe_hidden_size": 32,
    "num_hidden_layers": 3, "n_layer": 3, "n_layers": 3, "num_layers": 3, "encoder_layers": 3, "decoder_layers": 3,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "num_key_value_heads": 2, "num_kv_heads": 2, "mamba_n_heads": 4,
    "head_dim": 8, "d_kv": 8, "d_head": 8, "attention_head_size": 8, "v_head_dim": 8, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "qk_head_dim": 16, "kv_lora_rank": 8, "q_lora_rank": 8, "kv_channels": 8,
    "index_head_dim": 16, "index_n_heads": 2, "index_topk": 8,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "global_head_dim": 8,
    "num_global_key_value_heads": 2,
    "intermediate_size": 64, "d_ff": 64, "d_inner": 64, "n_inner": 64, "hidden_dim": 64, "ffn_dim": 64,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "ffn_hidden_size": 64, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16, "intermediate_size_mlp": 64,
    "inner_dim": 64, "moe_latent_size": 16, "expert_ffn_hidden_size": 16,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_topk": 2,
    "n_group": 1, "topk_group": 1, "moe_num_experts": 4, "n_shared_experts": 1, "num_shared_experts": 1,
    "max_position_embeddings": 64, "n_positions": 64, "max_seq_len": 64, "n_ctx": 64, "max_sequence_length": 64,
    "original_max_position_embeddings": 64, "sliding_window": 16, "type_vocab_size": 2,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
    "mamba_d_state": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8, "state_size": 8,
    "chunk_size": 8,
    "mamba_dt_rank": 4, "time_step_rank": 4, "n_mamba_heads": 2, "mamba_num_heads": 4, "mamba_head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "lru_width": 32, "num_memory_blocks": 1, "num_mtp_layers": 0, "num_nextn_predict_layers": 0,
    "image_size": 32, "depth": 2, "out_hidden_size": 32, "patch_size": 8, "num_channels": 3, "patch_embedding_size": 32,
    "projection_dim": 16, "proj_size": 16, "num_buckets": 8, "rotary_dim": 4, "num_mel_bins": 16,
    "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "cls_token_id": 2, "unk_token_id": 4,
    "pad_index": 1, "bos_index": 2, "eos_index": 3, "unk_index": 4, "mask_index": 5, "mask_token_id": 5,
    "decoder_start_token_id": 2, "forced_eos_token_id": None,
    "layerdrop": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
}  # fmt: skip
DROPOUT = re.compile(r"(drop|pdrop)", re.IGNORECASE)
SPECIAL_TOKENS = re.compile(r"(token_id|token_index)$")


# What a configuration class needs besides: sizes that depend on one another, and fields of its own.
_SWIN = {"embed_dim": 24, "num_heads": [1, 2, 4], "depths": [1, 1, 2], "image_size": 64, "patch_size": 4,
         "window_size": 4}  # fmt: skip
_FOUR_BLOCKS = {"num_hidden_layers": 4}
_SPEECH: dict[str, Any] = {
    "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0, "classifier_proj_size": 8,
}  # fmt: skip
_PATCH_4 = {"patch_size": 4}
OVERRIDES: dict[str, dict[str, Any]] = {
    "EsmcConfig": {"num_key_value_heads": 4},
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 4},
    "LukeConfig": {"entity_vocab_size": 16, "entity_emb_size": 32},
    "RoCBertConfig": {"pronunciation_vocab_size": VOCABULARY, "shape_vocab_size": VOCABULARY,
                      "pronunciation_embed_dim": 8, "shape_embed_dim": 8},
    "ReformerConfig": {"axial_pos_embds_dim": (8, 24), "axial_pos_shape": (3, 4), "attn_layers": ["local"] * 3,
                       "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "feed_forward_size": 64,
                       "local_attention_probs_dropout_prob": 0.0},
    "ZambaConfig": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1, "attention_hidden_size": 64,
                    "attention_head_dim": 16, "use_mamba_kernels": False, "num_key_value_heads": 4},
    "Zamba2Config": {"num_hidden_layers": 6, "layers_block_type": ["mamba", "hybrid"] * 3, "mamba_d_state": 8,
                     "n_mamba_heads": 4, "adapter_rank": 4, "use_mamba_kernels": False, "num_key_value_heads": 4},
    "FalconH1Config": {"mamba_d_ssm": 64, "mamba_d_head": 16, "mamba_n_heads": 4},
    "Mamba2Config": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "DbrxConfig": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
                   "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32}},
    "Gemma3nTextConfig": {"num_kv_shared_layers": 0, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 3,
                          "layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    "ZayaConfig": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "PerceiverConfig": {"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 3, "qk_channels": 32,
                        "v_channels": 32},
    "CohereCompassTextConfig": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "CpmAntConfig": {"dim_head": 8, "dim_ff": 64, "position_bias_num_buckets": 8, "prompt_length": 2,
                     "prompt_types": 4, "segment_types": 4},
    "KimiLinearConfig": {"linear_head_dim": 8, "linear_num_heads": 4, "num_hidden_layers": 4},
    "Dots1Config": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "DonutSwinConfig": _SWIN,
    "SwinConfig": _SWIN,
    "Swinv2Config": _SWIN,
    "EfficientNetConfig": {"width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320, "image_size": 64},
    "BltConfig": {"encoder_hash_byte_group_vocab": 64},
    "BrosConfig": {"hidden_size": 128},
    "Qwen3NextConfig": _FOUR_BLOCKS, "Qwen3_5TextConfig": _FOUR_BLOCKS, "Qwen3_5MoeTextConfig": _FOUR_BLOCKS,
    "Qwen4ExpConfig": _FOUR_BLOCKS, "Qwen4ExpTextConfig": _FOUR_BLOCKS, "BailingHybridConfig": _FOUR_BLOCKS,
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_dt_rank": 4},
    "BambaConfig": {"attn_layer_indices": [1]},
    "GraniteMoeHybridConfig": {"layer_types": ["mamba", "attention", "mamba"]},
    "Dots3NoteTextConfig": {"num_key_value_heads": 4, "num_hidden_layers": 42},
    "ConvNextConfig": _PATCH_4, "ConvNextV2Config": _PATCH_4,
    "MobileViTV2Config": {"patch_size": 2}, "MobileViTConfig": {"patch_size": 2},
    **dict.fromkeys(
        ("Wav2Vec2Config", "HubertConfig", "SEWConfig", "SEWDConfig", "UniSpeechConfig", "UniSpeechSatConfig",
         "WavLMConfig", "Data2VecAudioConfig", "Wav2Vec2ConformerConfig"),
        _SPEECH,
    ),
    "ASTConfig": {"max_length": 48},
    "WhisperConfig": {"max_source_positions": 12},
    "Wav2Vec2BertConfig": {"max_source_positions": 24, "feature_projection_input_dim": 16, "mask_time_prob": 0.0,
                           "conv_depthwise_kernel_size": 3, "classifier_proj_size": 8},
    "LiltConfig": {"hidden_size": 48},
    "XmodConfig": {"default_language": "en_XX"},
    "T5Config": {"decoder_start_token_id": 1},
    "Ernie4_5_MoeConfig": {"moe_k": 2},
    "SwiftFormerConfig": {"image_size": 64},
    "LevitConfig": {"image_size": 64, "patch_size": 16},
    "Siglip2VisionConfig": {"num_patches": 16},
    "xLSTMConfig": {"num_heads": 4, "chunk_size": 8, "qk_dim_factor": 0.5, "v_dim_factor": 1.0, "num_blocks": 3},
    "NemotronHConfig": {"n_groups": 1, "mamba_head_dim": 16, "mamba_num_heads": 4},
    "FunnelConfig": {"block_sizes": [1, 2], "num_decoder_layers": 1},
    "LongformerConfig": {"attention_window": 4},
    "BigBirdConfig": {"block_size": 2, "attention_type": "original_full"},
    "LayoutLMv3Config": {"input_size": 32, "coordinate_size": 4, "shape_size": 8, "visual_embed": False},
    "MarkupLMConfig": {"max_xpath_tag_unit_embeddings": 8, "max_xpath_subs_unit_embeddings": 8,
                       "xpath_unit_hidden_size": 4, "tag_pad_id": 1, "subs_pad_id": 1, "max_depth": 4},
}  # fmt: skip
# Convolutional models that take images of any size, and are too small for images of 32 pixels.
ANY_SIZE = {"BitConfig", "CvtConfig", "HGNetV2Config", "MobileNetV1Config", "MobileNetV2Config", "MobileViTConfig",
            "MobileViTV2Config", "PoolFormerConfig", "PPLCNetConfig", "RegNetConfig", "ResNetConfig", "TextNetConfig",
            "ConvNextConfig", "ConvNextV2Config", "FocalNetConfig"}  # fmt: skip
# Left as large as it is, or without what it needs.
CANNOT_BE_BUILT = {
    "LayoutLMv2Config": "needs detectron2",
    "TimmWrapperConfig": "needs timm",
    "Gemma3nConfig": "its vision tower needs timm",
    "DinatConfig": "needs natten",
    "GitConfig": "needs an image with each text",
    "ShieldGemma2Config": "takes text and images together",
    "MusicgenConfig": "takes one label for each codebook",
    "MusicgenMelodyConfig": "takes one label for each codebook",
    "Gemma4AssistantConfig": "runs on the keys and values of another model",
    "Gemma4UnifiedAssistantConfig": "runs on the keys and values of another model",
}


def shrink(config_class: type, **given: Any) -> Any:
    """An instance of `config_class` with small sizes, no dropout, and sub-configurations shrunk the same way."""
    defaults: Any = _defaults(config_class)
    if any(field.name == "kv_lora_rank" for field in dataclasses.fields(config_class)):
        given = {"num_key_value_heads": SIZES["num_attention_heads"], **given}  # latent attention has a key a query
    given = {**OVERRIDES.get(config_class.__name__, {}), **given}
    values: dict[str, Any] = {}
    special = 10
    for field in dataclasses.fields(config_class):
        name = field.name
        default = vars(defaults).get(name) if defaults is not None else field.default
        if name in given or not field.init:
            continue
        if isinstance(default, PreTrainedConfig):
            values[name] = shrink(type(default))
        elif isinstance(default, (list, tuple)) and name not in ("eos_token_id",):
            continue  # one value a stage: the default's sizes are kept
        elif name in SIZES and (default is not None or name.endswith("_id") or name in REQUIRED):
            values[name] = SIZES[name]
        elif DROPOUT.search(name) and isinstance(default, float):
            values[name] = 0.0
        elif SPECIAL_TOKENS.search(name) and isinstance(default, int) and default >= 0:
            values[name] = special
            special += 1
    return config_class(**{**values, **given})


def _defaults(config_class: type) -> Any:
    try:
        return config_class()
    except (TypeError, ValueError, AttributeError, ImportError):  # a configuration without defaults
        return None


REQUIRED = {"num_experts_per_tok", "head_dim", "num_key_value_heads", "intermediate_size", "d_inner", "vocab_size"}


def classes(head: str) -> Iterator[tuple[type, type]]:
    """(configuration class, model class) of every architecture that has `head`."""
    mapping = getattr(modeling_auto, HEADS[head])
    for config_class, model_class in mapping.items():
        for one in model_class if isinstance(model_class, tuple) else (model_class,):
            yield config_class, one


def build(config_class: type, model_class: type) -> nn.Module:
    """The smallest model of `model_class`. Raises what its constructor raises, and `ValueError` when it stays large."""
    given = {"is_decoder": True} if model_class.__name__ in ("ReformerModelWithLMHead",) else {}
    config = shrink(config_class, **given)
    wanted = getattr(model_class, "config_class", None)
    if wanted is not None and not isinstance(config, wanted):
        parts = [value for value in vars(config).values() if isinstance(value, wanted)]
        config = parts[0] if parts else config
    for part in (config, *(v for v in vars(config).values() if isinstance(v, PreTrainedConfig))):
        part.num_labels = LABELS
    with torch.device("meta"):
        size = sum(p.numel() for p in model_class(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    return model_class(config)


def batches(model: nn.Module, head: str, count: int, *, padded: bool = True) -> list[dict[str, torch.Tensor]]:
    """`count` examples that train `model`, each of one row. Three of four are padded at the right if `padded`."""
    config: Any = model.config
    text = config.get_text_config()
    main = str(getattr(model, "main_input_name", "input_ids"))
    accepted = inspect.signature(model.forward).parameters
    random = torch.Generator().manual_seed(0)
    examples = []
    for index in range(count):
        example: dict[str, torch.Tensor] = {}
        if main == "pixel_values" or (head == "image-classification" and "pixel_values" in accepted):
            size = 64 if _any_size(config) else _config_value(config, "image_size")
            height, width = size if isinstance(size, (list, tuple)) else (size, size)
            channels = int(_config_value(config, "num_channels", "in_channels") or 3)
            example["pixel_values"] = torch.randn(channels, height, width, generator=random)
        elif main == "inputs" and head == "image-classification":
            size = config.image_size
            example["inputs"] = torch.randn(3, size, size, generator=random)
        elif head == "audio-classification":
            example[main] = torch.randn(*_sound_shape(config), generator=random)
        else:
            vocabulary = int(getattr(text, "vocab_size", VOCABULARY))
            ids = torch.randint(min(32, vocabulary // 2), vocabulary, (TOKENS,), generator=random)
            padding = (0, 2, 4, 1)[index % BATCH] if padded else 0
            mask = torch.ones_like(ids)
            ids[TOKENS - padding - 1] = SIZES["eos_token_id"]
            if padding:
                ids[-padding:] = SIZES["pad_token_id"]
                mask[-padding:] = 0
            example[main] = ids
            if "attention_mask" in accepted:
                example["attention_mask"] = mask
            if "bbox" in accepted:
                example["bbox"] = torch.randint(0, 8, (TOKENS, 4), generator=random).sort(-1).values
        if head == "token-classification":
            labels = example[main] % LABELS
            example["labels"] = labels.masked_fill(example[main] == SIZES["pad_token_id"], -100)
        elif head == "causal-lm":
            example["labels"] = example[main].masked_fill(example[main] == SIZES["pad_token_id"], -100)
        else:
            example["labels"] = torch.tensor(index % LABELS)
        examples.append(example)
    return examples


def _sound_shape(config: Any) -> tuple[int, ...]:
    """Shape of one example: a spectrogram in the order that the model takes, or 2,000 samples of a wave."""
    shapes = {
        "ASTConfig": ("max_length", "num_mel_bins"),
        "WhisperConfig": ("num_mel_bins", "max_source_positions"),
        "Wav2Vec2BertConfig": ("max_source_positions", "feature_projection_input_dim"),
    }
    shape = [int(getattr(config, name)) for name in shapes.get(type(config).__name__, ())]
    if type(config).__name__ == "WhisperConfig":
        shape[1] *= 2  # one of its convolutions has a stride of 2
    return tuple(shape) or (2000,)


def _any_size(config: Any) -> bool:
    """Whether a convolutional model takes pictures of any size."""
    return _config_value(config, "image_size") is None or type(config).__name__ in ANY_SIZE


def _config_value(config: Any, *names: str) -> Any:
    for part in (config, *(value for value in vars(config).values() if isinstance(value, PreTrainedConfig))):
        for name in names:
            if getattr(part, name, None) is not None:
                return getattr(part, name)
    return None


def check(head: str, config_name: str, model_name: str) -> dict[str, Any]:
    """The result for one class: `built`, `frozen`, `served`, each true, false or None (not reached), and `why`."""
    found: dict[str, Any] = {
        "head": head,
        "model": model_name,
        "built": False,
        "frozen": None,
        "served": None,
        "why": "",
    }
    config_class, model_class = next(
        (c, m) for c, m in classes(head) if (c.__name__, m.__name__) == (config_name, model_name)
    )
    try:
        model = build(config_class, model_class)
        examples = batches(model, head, 2 * BATCH)
        loss = model.train()(**default_data_collator(examples[:BATCH])).loss
        loss.backward()
        if not loss.isfinite():
            raise ValueError(f"the loss is {float(loss)}")
    except Exception as error:  # whatever its code raises, it cannot be tried
        return {**found, "why": CANNOT_BE_BUILT.get(config_name) or _sentence(error)}
    found["built"] = True
    model.zero_grad(set_to_none=True)
    tower = None
    try:
        try:
            stack = find_blocks(model)
        except RequestError as error:
            tower = _first_tower(str(error))
            if tower is None:
                raise
            stack = find_blocks(model, tower)
        found |= {"blocks": stack.depth, "tower": tower or ""}
        check_units(model, stack, default_data_collator(examples[:BATCH]))
        check_frozen(config_class, model_class, examples, tower)
    except Exception as error:
        return {**found, "frozen": False, "why": _sentence(error)}
    found["frozen"] = True
    try:
        reason = check_cache(config_class, model_class, examples, tower)
        remark = ""
        if reason is not None and "padding" in reason and "attention_mask" in examples[0]:
            reason_unpadded = check_cache(
                config_class, model_class, batches(model, head, 2 * BATCH, padded=False), tower
            )
            if reason_unpadded is None:
                remark, reason = f"without padding; with it: {reason}", None
    except Exception as error:
        return {**found, "served": False, "why": f"FAILED: {_sentence(error)}"}
    return {**found, "served": reason is None, "why": reason or remark}


def _first_tower(message: str) -> str | None:
    """The tower to freeze of several: the language model or the encoder if there is one, else the first."""
    names = message.rpartition(" of ")[2].rstrip(".").split(", ") if "towers" in message else []
    main = [n for n in names if not re.search("vision|visual|audio|image|speech", n)] or names
    preferred = [n for n in main if re.search("language_model|text", n)] or [n for n in main if "encoder" in n] or main
    return preferred[0] if preferred else None


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _first_tensor(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output
    return next(_first_tensor(value) for value in values if isinstance(value, (torch.Tensor, tuple)))


def check_units(model: nn.Module, stack: BlockStack, batch: dict[str, torch.Tensor]) -> None:
    """Raises `AssertionError` unless each parameter is in one unit, and what feeds the blocks is below them."""
    names = [p.name for unit in stack.units for p in unit.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters()), (
        "a parameter is left out or counted twice"
    )
    if not stack.units[0].parameters:  # right where the first block takes the inputs themselves
        last, outputs = model.get_submodule(stack.blocks[-1].modules[-1]), []
        handle = last.register_forward_hook(lambda module, args, output: outputs.append(_first_tensor(output)))
        model(**batch)
        handle.remove()
        assert outputs, "no parameter is in `embeddings`, and the last block does not run"
        outputs[-1].sum().backward()
        early = [p.name for p in stack.units[-1].parameters if model.get_parameter(p.name).grad is not None]
        assert not early, f"{early[0]} feeds the blocks and is in `head`"
    assert stack.depth >= 1, "no blocks"
    assert all(unit.parameters for unit in stack.blocks), "a block has no parameters"


def check_frozen(config_class: type, model_class: type, examples: list[dict[str, Any]], tower: str | None) -> None:
    """Raises `AssertionError` unless two AdamW steps equal those with flags set by hand, bit for bit."""
    batch = default_data_collator(examples[:BATCH])
    ours, hand = build(config_class, model_class).train(), build(config_class, model_class).train()
    stack = find_blocks(ours, tower)
    mask = FreezeMask.first(stack.depth, 1) if stack.depth > 1 else FreezeMask(stack.depth, embeddings=True)
    frozen = stack.frozen(mask)
    for name, parameter in hand.named_parameters():
        parameter.requires_grad_(name not in frozen)
    optimizers = []
    for model in (ours, hand):
        chosen = [p for p in model.parameters() if model is ours or p.requires_grad]
        optimizers.append(torch.optim.AdamW(chosen, lr=1e-2))
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    with Freezer(ours, stack, optimizer=optimizers[0]) as freezer:
        freezer.apply(mask)
        for _ in range(2):
            for model, optimizer in zip((ours, hand), optimizers, strict=True):
                torch.manual_seed(1)
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    other = dict(hand.named_parameters())
    moved = {name for name, p in ours.named_parameters() if not torch.equal(p, before[name])}
    assert not moved & frozen, f"a frozen parameter moved: {sorted(moved & frozen)[0]}"
    assert moved, "nothing moved"
    different = [n for n, p in ours.named_parameters() if not torch.equal(p, other[n]) and not (p != p).all()]
    assert not different, f"differs from flags set by hand: {different[0]}"


def check_cache(config_class: type, model_class: type, examples: list[dict[str, Any]], tower: str | None) -> str | None:
    """None when the cache served the same training; else the reason that it gave. Raises when the training differs."""
    runs = []
    for cache in (False, True):
        model = build(config_class, model_class)
        callback = FreezeCallback(BottomUp(1), cache=cache, eval_frozen=True, tower=tower, quiet=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, num_train_epochs=4, per_device_train_batch_size=BATCH, learning_rate=1e-3, report_to="none",
                save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
                seed=0, logging_nan_inf_filter=False,
            )  # fmt: skip
            trainer = Trainer(model=model, args=arguments, train_dataset=examples, callbacks=[callback])
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        runs.append(([e["loss"] for e in trainer.state.log_history if "loss" in e], callback))
    (plain, _), (cached, callback) = runs
    assert len(plain) == len(cached), "the cached run took another number of steps"
    worst = max(abs(a - b) / max(1e-6, abs(a)) for a, b in zip(plain, cached, strict=True))
    assert worst < 1e-3, f"losses differ by {worst:.1e}"
    stats = callback.cache.stats
    if stats.disabled_reason is not None:
        return str(stats.disabled_reason)
    return None if stats.hits else "no example was served"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--only", default="", help="regular expression on the model class")
    parser.add_argument("--output", type=Path, help="Markdown file for the table")
    parser.add_argument("--one", nargs=3, metavar=("HEAD", "CONFIG", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(check(*arguments.one)))
        return
    found = []
    for head in arguments.heads:
        for config_class, model_class in classes(head):
            if not re.search(arguments.only, model_class.__name__):
                continue
            found.append(_in_a_process(head, config_class.__name__, model_class.__name__))
            row = found[-1]
            print(*(f"{row[k]!s:5}" for k in ("built", "frozen", "served")), row["model"], row["why"], flush=True)
    text = table(found)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


def _in_a_process(head: str, config: str, model: str) -> dict[str, Any]:
    """`check` forked off, so that what an architecture does to the process stays with it."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(writer, head, config, model))
    process.start()
    lost = {"head": head, "model": model, "built": True, "frozen": None, "served": None}
    if reader.poll(LIMIT_SECONDS):
        result: dict[str, Any] = reader.recv()
    else:
        process.kill()
        result = {**lost, "why": f"not done after {LIMIT_SECONDS} s"}
    process.join()
    return result


def _send(writer: Any, *which: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    try:
        result = check(*which)
    except BaseException as error:
        result = {
            "head": which[0],
            "model": which[2],
            "built": True,
            "frozen": None,
            "served": None,
            "why": _sentence(error),
        }
    writer.send(result)


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: the conclusion, the shares of each head, and every class that fails, is not served or has a remark."""
    built = [row for row in found if row["built"]]
    frozen, served = (sum(bool(row[key]) for row in built) for key in ("frozen", "served"))
    unpadded = sum(bool(row["served"] and row["why"]) for row in built)
    shares = [f"{count} ({count / max(1, len(built)):.1%})" for count in (frozen, served)]
    lines = [
        "# Architectures",
        "",
        f"Of the {len(built)} classes that can be built, {shares[0]} are frozen exactly as with flags set by hand,",
        f"and the cache serves {shares[1]}, {unpadded} of these only in batches without padding.",
        f"In {frozen - served} it is disabled with a reason, and training goes on. What is not frozen is refused.",
        "",
        "```",
        "nice python benchmarks/architectures.py --output benchmarks/results/architectures.md",
        "```",
        "",
        f"{len(found)} classes of five Auto models, with random weights and about three blocks. CPU, Python "
        f"{platform.python_version()},",
        f"torch {torch.__version__}, transformers {transformers.__version__}.",
        "",
        "| head | classes | built | frozen as by hand | served by the cache |",
        "|---|---:|---:|---:|---:|",
    ]
    for head in HEADS:
        rows = [row for row in found if row["head"] == head]
        if rows:
            counts = [sum(bool(row[key]) for row in rows) for key in ("built", "frozen", "served")]
            cells = " | ".join(f"{count} ({count / max(1, counts[0]):.0%})" for count in counts[1:])
            lines.append(f"| {head} | {len(rows)} | {counts[0]} | {cells} |")
    lines += ["", "Classes that are not built, frozen or served, and remarks:", ""]
    lines += ["| class | built | frozen | served | cause or remark |", "|---|---|---|---|---|"]
    mark = {True: "yes", False: "no", None: "–"}
    for row in found:
        if not row["served"] or row["why"]:
            marks = " | ".join(mark[row[key]] for key in ("built", "frozen", "served"))
            lines.append(f"| {row['model']} | {marks} | {row['why'].replace('|', '/')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
