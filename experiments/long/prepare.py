"""Cut whole documents of CoNLL-2003 into pieces of at most N tokens, so that every length trains and scores one text.

    python experiments/long/prepare.py --dataset FOLDER --model MODEL --output FOLDER [--lengths 128 512]
        [--documents 100 30 30]

FOLDER/128 and FOLDER/512 are data sets whose "sentences" are pieces of documents: sentences that follow each other
are joined while they fit, and no word is cut off. FOLDER/sentences has the sentences as they are. `--documents` says
how many documents of the training, validation and test files are taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

Sentence = list[str]
"""The lines of a sentence, one a word."""


def documents(path: Path) -> list[list[Sentence]]:
    """Return the sentences of each document of a file; documents begin with `-DOCSTART-`."""
    found: list[list[Sentence]] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.split("\n") if line.strip()]
        if lines and lines[0].startswith("-DOCSTART-"):
            found.append([])
            lines = lines[1:]
        if lines:
            found[-1].append(lines)
    return found


def pieces(document: Sequence[Sentence], costs: Sequence[int], most: int) -> list[Sentence]:
    """Join sentences of a document while their tokens, `costs`, fit into `most`; a longer one stands alone."""
    found: list[Sentence] = []
    held = 0
    for sentence, cost in zip(document, costs, strict=True):
        if found and held + cost <= most:
            found[-1] = found[-1] + sentence
            held += cost
        else:
            found.append(sentence)
            held = cost
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--documents", type=int, nargs=3, default=[100, 30, 30])
    options = parser.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    special = tokenizer.num_special_tokens_to_add()
    for split, count in zip(("train", "valid", "test"), options.documents, strict=True):
        taken = documents(options.dataset / f"{split}.txt")[:count]
        texts = [[[line.split()[0] for line in sentence] for sentence in document] for document in taken]
        costs = [[_tokens(tokenizer, sentence) for sentence in document] for document in texts]
        cut = {"sentences": [sentence for document in taken for sentence in document]}
        for length in options.lengths:
            cut[str(length)] = [
                piece
                for document, cost in zip(taken, costs, strict=True)
                for piece in pieces(document, cost, length - special)
            ]
        for name, sentences in cut.items():
            path = options.output / name / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n\n".join("\n".join(sentence) for sentence in sentences) + "\n", encoding="utf-8")
            print(f"{path}: {len(sentences)} pieces of {len(taken)} documents")


def _tokens(tokenizer: Any, words: list[str]) -> int:
    return len(tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    main()
