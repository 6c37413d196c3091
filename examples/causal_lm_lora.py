"""LoRA above a frozen prefix: the adapters train in the upper half of a causal language model.

PEFT freezes the pretrained weights and adds adapters to every block. `bottom-up:0.5` freezes the adapters of the lower
half as well, so nothing trains there: the gradient stops at the boundary and the prefix cache can skip the lower half
for texts seen before. `requires_grad` flags set by PEFT are never changed to True.

    python examples/causal_lm_lora.py
    python examples/causal_lm_lora.py --model Qwen/Qwen2.5-0.5B --policy bottom-up:0.75
    python examples/causal_lm_lora.py --smoke     # a tiny random model and six texts, offline
"""

from __future__ import annotations

import argparse

import _smoke
from datasets import load_dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from adaptivefreeze import FreezeCallback


def main() -> None:
    parser = argparse.ArgumentParser(description="Train LoRA adapters above a frozen, cached prefix.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M")
    parser.add_argument("--policy", default="bottom-up:0.5")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--output", default="runs/causal_lm_lora")
    parser.add_argument("--smoke", action="store_true", help="run offline in seconds")
    options = parser.parse_args()

    if options.smoke:
        data, tokenizer = _smoke.reviews(), _smoke.tokenizer()
        model = AutoModelForCausalLM.from_config(_smoke.llama())
    else:
        data = load_dataset("cornell-movie-review-data/rotten_tomatoes")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model = AutoModelForCausalLM.from_pretrained(options.model)
    data = data.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128),
        batched=True,
        remove_columns=data["train"].column_names,
    )

    adapters = LoraConfig(task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(model, adapters)
    freezing = FreezeCallback(options.policy, cache=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            options.output,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=2 if options.smoke else 8,
            learning_rate=2e-4,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[freezing],
    )
    trainer.train()
    stats = freezing.cache.stats
    print(f"trainable: {freezing.stack.trainable_parameters(freezing.mask):,} parameters, frozen {freezing.mask}")
    print(f"cache: {stats.hit_rate:.0%} of the examples found" if stats.hits else "cache: no example was found")
    print(f"validation loss: {trainer.evaluate()['eval_loss']:.4f}")


if __name__ == "__main__":
    main()
