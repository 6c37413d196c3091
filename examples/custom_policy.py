"""A policy of your own: linear probing, then fine-tuning (LP-FT), registered and checked.

The head trains alone for a share of the run, then all blocks above the first `k` train as well (Kumar et al. 2022,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv 2202.10054).
`register_policy` gives the class a spec, and `check_policy` runs the checks that every built-in policy passes.

    python examples/custom_policy.py
    python examples/custom_policy.py --policy probe-then-tune:share=0.5,k=4
    python examples/custom_policy.py --smoke     # a tiny random model and six texts, offline
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

import _smoke
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification as AutoClassifier
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from adaptivefreeze import (
    AdaptivePolicy,
    BlockStack,
    Decision,
    DecisionPoints,
    FreezeCallback,
    FreezeMask,
    Signals,
    parse_policy,
    register_policy,
)
from adaptivefreeze.testing import check_policy


@register_policy
@dataclass
class ProbeThenTune(AdaptivePolicy):
    """Trains the head alone for a share of the run, then all but the first `k` blocks.

    Args:
        share: Share of the run in which only the head trains, above 0 and below 1.
        k: Number of blocks that stay frozen afterwards, with the embeddings.
    """

    name: ClassVar[str] = "probe-then-tune"
    share: float = 0.2
    k: int = 0

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask.first(stack.depth, stack.depth)

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(steps={max(1, round(self.share * total_steps))})

    def update(self, signals: Signals) -> Decision:
        depth = signals.mask.depth
        mask = FreezeMask.first(depth, min(self.k, depth)) if self.k else FreezeMask(depth)
        return Decision(mask, f"the head has trained for {self.share:.0%} of the run")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the head first, then the rest of the model.")
    parser.add_argument("--model", default="google-bert/bert-base-uncased")
    parser.add_argument("--policy", default="probe-then-tune")
    parser.add_argument("--output", default="runs/custom_policy")
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer = _smoke.reviews(), _smoke.tokenizer()
        model = AutoClassifier.from_config(_smoke.bert())
    else:
        data = load_dataset("cornell-movie-review-data/rotten_tomatoes")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = AutoClassifier.from_pretrained(options.model, num_labels=2)
    train = data["train"].map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)

    policy = parse_policy(options.policy)
    check_policy(policy)
    freezing = FreezeCallback(policy)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            options.output,
            per_device_train_batch_size=2 if options.smoke else 16,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=train,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[freezing],
    )
    trainer.train()
    for entry in freezing.timeline:
        print(f"step {entry.step}: {entry.mask}  ({entry.reason})")


if __name__ == "__main__":
    main()
