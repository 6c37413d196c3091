"""A tiny BERT, data for it, and a real Trainer around both: what the tests of training share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

BLOCKS = 4


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """`count` sentences of 5 to 9 tokens, padded to 9, with a label a token."""

    def __init__(self, count: int = 24, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = []
        for _ in range(count):
            length = int(torch.randint(5, 10, (1,), generator=generator))
            ids = torch.randint(5, 60, (9,), generator=generator)
            mask = (torch.arange(9) < length).long()
            labels = (ids % 3).masked_fill(mask == 0, -100)
            self.rows.append({"input_ids": ids * mask, "attention_mask": mask, "labels": labels})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


def tiny_bert(seed: int = 0, blocks: int = BLOCKS) -> BertForTokenClassification:
    """A BERT of `blocks` blocks, 16 wide, dropout 0.1."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=3,
    )
    return BertForTokenClassification(config)


def make_trainer(
    model: nn.Module, folder: Path | str, callbacks: Any = (), cls: type = Trainer, **settings: Any
) -> Any:
    """A Trainer over `Sentences()` that logs each step, on one thread, on CPU."""
    optimizers = settings.pop("optimizers", (None, None))
    train = settings.pop("train_dataset", None) or Sentences()
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return cls(
        model=model,
        args=TrainingArguments(**{**arguments, **settings}),
        train_dataset=train,
        eval_dataset=Sentences(8, seed=1),
        callbacks=list(callbacks),
        optimizers=optimizers,
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def losses(trainer: Trainer) -> list[float]:
    """The logged training losses, step by step."""
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters that are not bit for bit what they were."""
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def twin(model: nn.Module) -> nn.Module:
    """The same model once more, sharing nothing."""
    return copy.deepcopy(model)
