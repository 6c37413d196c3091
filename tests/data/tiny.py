"""Models small enough to train in a second, saved by save_pretrained, and small data sets to train them on."""

import string
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Words that are one subword; any other word of ASCII letters and digits is split into its characters.
WHOLE = ("anna", "bob", "lives", "in", "rome", "works", "for", "acme", "good", "bad", "film", "the", "a", "was")

CONLL = {
    "train.txt": "Anna B-PER\nlives O\nin O\nRome B-LOC\n\nBob B-PER\nworks O\nfor O\nAcme B-ORG\n",
    "valid.txt": "Anna B-PER\nworks O\n",
    "test.txt": "Bob B-PER\nBaker I-PER\nlives O\n\nthe O\nfilm O\n",
}
CSV = {
    "train.csv": "text,label\nthe film was good,1\nthe film was bad,0\n" + "good,1\nbad,0\n" * 4,
    "validation.csv": "text,label\ngood film,1\nbad film,0\n",
    "test.csv": 'text,label\n"a film, good",1\na bad film,0\n',
}


def save_model(
    folder: Path, *, layers: int = 2, hidden: int = 32, whole: Sequence[str] = WHOLE, max_positions: int = 64
) -> Path:
    """A BERT of random but fixed weights with its uncased tokenizer, as save_pretrained writes them."""
    letters = string.ascii_lowercase + string.digits
    subwords = (*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *whole, *".,;:!?&'-")
    tokenizer = BertTokenizerFast(
        vocab={subword: number for number, subword in enumerate(subwords)}, do_lower_case=True
    )
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(subwords),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=max_positions,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


def write_files(folder: Path, files: dict[str, str]) -> Path:
    """A data set folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
