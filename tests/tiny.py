"""A tiny pretrained model and tiny data sets in folders: what the tests of studies and of the command line share."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

_WORDS = ("in", "near", "sees", "the", "old", "town", "who", "left", "Ada", "Bo", "Cy", "Dee", "Oslo", "Rome", "Lima")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def save_model(folder: Path, blocks: int = 4) -> Path:
    """A BERT of `blocks` blocks, 16 wide, random weights, with a tokenizer that knows fifteen words."""
    words = Tokenizer(WordPiece({word: i for i, word in enumerate((*_SPECIAL, *_WORDS))}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    set_seed(11)
    config = BertConfig(
        vocab_size=len(_SPECIAL) + len(_WORDS),
        hidden_size=16,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tags(folder: Path, train: int = 24) -> Path:
    """CoNLL files of people and places: `train` sentences to train on, 8 for validation and for test."""
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate((("train", train), ("valid", 8), ("test", 8))):
        draw = random.Random(seed)
        sentences = []
        for _ in range(count):
            words = [(draw.choice(_WORDS[8:12]), "B-PER"), ("sees", "O"), (draw.choice(_WORDS[12:]), "B-LOC")]
            words[2:2] = [(word, "O") for word in draw.sample(_WORDS[:8], draw.randrange(4))]
            sentences.append("\n".join(f"{word} {tag}" for word, tag in words))
        (folder / f"{name}.txt").write_text("\n\n".join(sentences) + "\n")
    return folder


def save_texts(folder: Path, train: int = 24) -> Path:
    """CSV files of texts that say either Ada or Bo."""
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate((("train", train), ("validation", 8), ("test", 8))):
        draw = random.Random(seed)
        rows = []
        for index in range(count):
            who = ("Ada", "Bo")[index % 2]
            rows.append(f"{' '.join(draw.sample(_WORDS[:8], 3))} {who},{who}")
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder
