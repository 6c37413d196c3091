"""The depth as a hyperparameter, inside `Trainer.hyperparameter_search`, next to the learning rate.

The callback's policy is set for each trial. Where only the depth is of interest, `search_depth` and `adaptivefreeze
search` do more: they train every depth from several seeds and report intervals.

    python examples/depth_search.py
    python examples/depth_search.py --trials 40
    python examples/depth_search.py --smoke     # a tiny random model and six texts, offline
"""

from __future__ import annotations

import argparse

import _smoke
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from adaptivefreeze import BottomUp, FreezeCallback


def main() -> None:
    parser = argparse.ArgumentParser(description="Search the depth and the learning rate together.")
    parser.add_argument("--model", default="google-bert/bert-base-uncased")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--output", default="runs/depth_search")
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer, config = _smoke.reviews(), _smoke.tokenizer(), _smoke.bert()
        options.trials = 2
    else:
        data = load_dataset("cornell-movie-review-data/rotten_tomatoes")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        config = AutoConfig.from_pretrained(options.model, num_labels=2)
    data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)

    def new_model(trial=None):
        if options.smoke:
            return AutoModelForSequenceClassification.from_config(config)
        return AutoModelForSequenceClassification.from_pretrained(options.model, config=config)

    freezing = FreezeCallback(BottomUp(0), cache=True)

    def search_space(trial):
        freezing.policy = BottomUp(trial.suggest_int("depth", 0, config.num_hidden_layers))
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 2e-4, log=True)}

    trainer = Trainer(
        model_init=new_model,
        args=TrainingArguments(
            options.output,
            num_train_epochs=1 if options.smoke else 3,
            per_device_train_batch_size=2 if options.smoke else 16,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda e: {"accuracy": float((e.predictions.argmax(-1) == e.label_ids).mean())},
        callbacks=[freezing],
    )
    best = trainer.hyperparameter_search(
        hp_space=search_space,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        direction="maximize",
        backend="optuna",
        n_trials=options.trials,
    )
    print(f"best validation accuracy {best.objective:.4f} with {best.hyperparameters}")


if __name__ == "__main__":
    main()
