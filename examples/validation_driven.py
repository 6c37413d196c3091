"""An adaptive policy: freeze deeper while the validation metric holds, thaw when it drops.

`ValidationDriven` decides after each evaluation, so the Trainer needs an `eval_strategy`. The timeline records every
change of the mask with its step and its reason.

    python examples/validation_driven.py
    python examples/validation_driven.py --threshold 0.01 --eval-steps 50
    python examples/validation_driven.py --smoke     # a tiny random model and six texts, offline
"""

from __future__ import annotations

import argparse

import _smoke
from datasets import load_dataset
from sklearn.metrics import f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from adaptivefreeze import FreezeCallback, ValidationDriven


def main() -> None:
    parser = argparse.ArgumentParser(description="Let the validation metric decide how deep to freeze.")
    parser.add_argument("--model", default="google-bert/bert-base-uncased")
    parser.add_argument("--threshold", type=float, default=0.005, help="a drop of the metric that counts")
    parser.add_argument("--eval-steps", type=int, default=100)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--output", default="runs/validation_driven")
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer = _smoke.reviews(), _smoke.tokenizer()
        model = AutoModelForSequenceClassification.from_config(_smoke.bert())
        options.eval_steps = 1
    else:
        data = load_dataset("cornell-movie-review-data/rotten_tomatoes")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)
    data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)

    policy = ValidationDriven(metric="macro_f1", mode="max", threshold=options.threshold, patience=1)
    freezing = FreezeCallback(policy, cache=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            options.output,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=2 if options.smoke else 16,
            learning_rate=5e-5,
            eval_strategy="steps",
            eval_steps=options.eval_steps,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda e: {"macro_f1": f1_score(e.label_ids, e.predictions.argmax(-1), average="macro")},
        callbacks=[freezing],
    )
    trainer.train()
    for entry in freezing.timeline:
        print(f"step {entry.step}: {entry.mask}  ({entry.reason})")
    print(f"test macro F1: {trainer.evaluate(data['test'])['eval_macro_f1']:.4f}")


if __name__ == "__main__":
    main()
