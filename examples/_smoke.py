"""Tiny random models, a tokenizer and embedded texts for `--smoke`: the examples then run offline, in seconds."""

from __future__ import annotations

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, LlamaConfig, PreTrainedTokenizerFast, set_seed

SENTENCES = (
    ("Ada lives in Oslo", (1, 0, 0, 3)),
    ("Bo saw Ada", (1, 0, 1)),
    ("Lima is far from Rome", (3, 0, 0, 0, 3)),
    ("the old town of Oslo", (0, 0, 0, 0, 3)),
    ("Cy left Rome", (1, 0, 3)),
    ("Ada saw the old film", (1, 0, 0, 0, 0)),
)
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
REVIEWS = (
    ("a fine film", 1),
    ("a dull film", 0),
    ("the plot is fine", 1),
    ("the plot is dull and far too long", 0),
    ("fine old film", 1),
    ("too long and too dull", 0),
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of the embedded texts."""
    words = sorted({word for text, _ in (*SENTENCES, *REVIEWS) for word in text.split()})
    model = WordLevel({word: index for index, word in enumerate([*SPECIAL, *words])}, unk_token="[UNK]")
    backend = Tokenizer(model)
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]",
    )  # fmt: skip


def tagged_sentences() -> DatasetDict:
    """Sentences with the columns of CoNLL-2003: `tokens` and `ner_tags`."""
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=TAGS))})
    rows = {"tokens": [text.split() for text, _ in SENTENCES], "ner_tags": [list(tags) for _, tags in SENTENCES]}
    return _splits(Dataset.from_dict(rows, features=features))


def reviews() -> DatasetDict:
    """Texts with the columns of rotten_tomatoes: `text` and `label`."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = {"text": [text for text, _ in REVIEWS], "label": [label for _, label in REVIEWS]}
    return _splits(Dataset.from_dict(rows, features=features))


def bert(labels: int = 2) -> BertConfig:
    """The configuration of a BERT of four blocks, 16 wide."""
    set_seed(0)
    return BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip


def llama() -> LlamaConfig:
    """The configuration of a Llama of four blocks, 16 wide."""
    set_seed(0)
    return LlamaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip


def _splits(rows: Dataset) -> DatasetDict:
    return DatasetDict({"train": rows, "validation": rows, "test": rows})
