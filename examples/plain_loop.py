"""Freezing in a plain PyTorch loop, without a Trainer, by a static or an adaptive policy.

`freeze` finds the blocks, applies the policy, and restores every `requires_grad` flag when the `with` block ends. The
optimizer is built over all parameters; the frozen ones receive no gradient and keep no optimizer state. An adaptive
policy needs the length of the run, `gradients_ready()` before gradients are clipped, and `step()` at the end of a step.

    python examples/plain_loop.py
    python examples/plain_loop.py --policy bottom-up:6
    python examples/plain_loop.py --smoke     # a tiny random model and six texts, offline
"""

from __future__ import annotations

import argparse

import _smoke
import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from adaptivefreeze import freeze


def main() -> None:
    parser = argparse.ArgumentParser(description="Freeze blocks in a plain PyTorch training loop.")
    parser.add_argument("--model", default="google-bert/bert-base-uncased")
    parser.add_argument("--policy", default="autofreeze")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer = _smoke.reviews(), _smoke.tokenizer()
        model = AutoModelForSequenceClassification.from_config(_smoke.bert())
    else:
        data = load_dataset("cornell-movie-review-data/rotten_tomatoes")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)
    train = data["train"].map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True, remove_columns="text"
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = DataLoader(
        train, batch_size=2 if options.smoke else 16, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer)
    )
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    length = {"total_steps": options.epochs * len(loader), "steps_per_epoch": len(loader)}

    with freeze(model, options.policy, optimizer=optimizer, **length) as run:
        for epoch in range(options.epochs):
            total = 0.0
            for batch in loader:
                loss = model(**batch.to(device)).loss
                loss.backward()
                run.gradients_ready()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                total += float(loss.detach())
                if run.step():
                    break
            trainable = run.stack.trainable_parameters(run.mask)
            print(f"epoch {epoch}: mean loss {total / len(loader):.4f}, {trainable:,} parameters train, {run.mask}")
    for change in run.timeline:
        print(f"step {change.step}: {change.mask}  ({change.reason})")
    print(f"restored: {all(p.requires_grad for p in model.parameters())}")


if __name__ == "__main__":
    main()
