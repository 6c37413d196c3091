"""Text classification: full fine-tuning beside a frozen prefix, on rotten_tomatoes, from the same start.

Each policy trains the same pretrained model with the same data order. The cache keeps its rows on disk as well, where
a later run with the same frozen weights finds them.

    python examples/sentiment.py
    python examples/sentiment.py --policies nothing bottom-up:0.25 bottom-up:0.5 head-only
    python examples/sentiment.py --smoke     # a tiny random model and six texts, offline
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _smoke
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from adaptivefreeze import FreezeCallback, PrefixCache


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare freezing policies on a text classification task.")
    parser.add_argument("--model", default="distilbert/distilbert-base-uncased")
    parser.add_argument("--policies", nargs="+", default=["nothing", "bottom-up:0.5"])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--output", default="runs/sentiment")
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer = _smoke.reviews(), _smoke.tokenizer()
    else:
        data = load_dataset("cornell-movie-review-data/rotten_tomatoes")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)

    def new_model():
        set_seed(0)  # the head is new: the same start for each policy
        if options.smoke:
            return AutoModelForSequenceClassification.from_config(_smoke.bert())
        return AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)

    for policy in options.policies:
        freezing = FreezeCallback(policy, cache=PrefixCache(memory="2GiB", disk=Path(options.output, "rows")))
        trainer = Trainer(
            model=new_model(),
            args=TrainingArguments(
                options.output,
                num_train_epochs=options.epochs,
                per_device_train_batch_size=2 if options.smoke else 16,
                learning_rate=5e-5,
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                seed=0,
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda e: {"accuracy": float((e.predictions.argmax(-1) == e.label_ids).mean())},
            callbacks=[freezing],
        )
        seconds = trainer.train().metrics["train_runtime"]
        accuracy = trainer.evaluate(data["test"])["eval_accuracy"]
        print(f"{policy}: test accuracy {accuracy:.4f}, {seconds:.1f} s with evaluation, frozen {freezing.mask}")


if __name__ == "__main__":
    main()
