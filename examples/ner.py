"""Named-entity recognition: BERT on CoNLL-2003 with the first blocks frozen and cached.

The embeddings and the first three blocks keep their pretrained weights. Their output for a sentence is the same in
every epoch, so the prefix cache computes it once and skips these blocks afterwards.

    python examples/ner.py
    python examples/ner.py --policy bottom-up:6 --epochs 4
    python examples/ner.py --smoke     # a tiny random model and six sentences, offline
"""

from __future__ import annotations

import argparse

import _smoke
from datasets import load_dataset
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from adaptivefreeze import FreezeCallback


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a token classifier with frozen, cached blocks.")
    parser.add_argument("--model", default="google-bert/bert-base-cased")
    parser.add_argument("--policy", default="bottom-up:3")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--output", default="runs/ner")
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer = _smoke.tagged_sentences(), _smoke.tokenizer()
    else:
        data = load_dataset("eriktks/conll2003", revision="refs/convert/parquet")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    tags = data["train"].features["ner_tags"].feature.names
    if options.smoke:
        model = AutoModelForTokenClassification.from_config(_smoke.bert(len(tags)))
    else:
        model = AutoModelForTokenClassification.from_pretrained(options.model, num_labels=len(tags))

    def encode(batch):
        """Tokenize words; a word's first subword carries its tag, the others are ignored by the loss."""
        encoded = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=128)
        encoded["labels"] = []
        for index, tags_of_words in enumerate(batch["ner_tags"]):
            words = encoded.word_ids(index)
            first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            encoded["labels"].append([tags_of_words[w] if f else -100 for w, f in zip(words, first, strict=True)])
        return encoded

    def entity_f1(evaluated):
        rows = zip(evaluated.label_ids, evaluated.predictions.argmax(-1), strict=True)
        pairs = [([tags[t] for t in gold[gold >= 0]], [tags[t] for t in found[gold >= 0]]) for gold, found in rows]
        return {"entity_f1": f1_score(*map(list, zip(*pairs, strict=True)))}

    data = data.map(encode, batched=True, remove_columns=data["train"].column_names)
    freezing = FreezeCallback(options.policy, cache=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            options.output,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=2 if options.smoke else 16,
            learning_rate=5e-5,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=entity_f1,
        callbacks=[freezing],
    )
    trainer.train()
    stats = freezing.cache.stats
    print(f"frozen: {freezing.mask}")
    print(f"cache: {stats.hit_rate:.0%} of the examples found, about {stats.seconds_saved:.0f} s saved")
    print(f"test entity F1: {trainer.evaluate(data['test'])['eval_entity_f1']:.4f}")


if __name__ == "__main__":
    main()
