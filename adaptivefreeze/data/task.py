"""`Task`: a tokenized data set and the source of a model, ready for a Trainer, with its scores."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .corpus import Kind
from .metric.scores import class_scores, tag_scores
from .models import ModelSource, build_model
from .tokenization import IGNORED, Coverage

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class Task:
    """One data set, tokenized for one model; created by `load_task`.

    Attributes:
        kind: `ner` or `classification`.
        dataset: The name of the folder or of the data set on the hub, or `demo`.
        fingerprint: SHA-256 of everything that is trained on or scored: the examples in use, their token ids, the
            labels, the maximum length and the padding. It is the same in every process.
        labels: The labels of all splits together; the index of a label is its id.
        train, validation, test: The splits, with the columns `input_ids`, `attention_mask`, `token_type_ids` if the
            tokenizer has them (one integer per token), and `labels` (one id per token for NER, -100 where no label
            counts; one id per text otherwise).
        tokenizer: The tokenizer of the model.
        coverage: How well the tokenizer covers the three splits.
        warnings: Sentences that a reader of the results must know.
        max_length: Maximum length of an example in tokens.
        pad_to_max_length: Whether every example is padded to `max_length`.
        source: The source of the model.
    """

    kind: Kind
    dataset: str
    fingerprint: str
    labels: tuple[str, ...]
    train: "Dataset"
    validation: "Dataset"
    test: "Dataset"
    tokenizer: PreTrainedTokenizerBase
    coverage: Coverage
    warnings: tuple[str, ...]
    max_length: int
    pad_to_max_length: bool
    source: ModelSource

    @property
    def model(self) -> str:
        """The model as requested: hub name, folder or `demo`."""
        return self.source.name

    @property
    def train_examples(self) -> int:
        """Number of training examples."""
        return len(self.train)

    def new_model(self, seed: int) -> PreTrainedModel:
        """Load the pretrained model with a new head for `labels`.

        Equal seeds give bit-identical models, and the caller's random state is preserved.

        Args:
            seed: The seed of the head.

        Raises:
            RequestError: The weights cannot be loaded.
        """
        pad = self.tokenizer.pad_token_id
        return build_model(self.source, self.kind, self.labels, pad_token_id=pad, seed=seed)

    def collator(self) -> Callable[[list[dict[str, Any]]], Any]:
        """Return a collator that pads a batch to its longest example, or to `max_length` if `pad_to_max_length`."""
        collate = DataCollatorForTokenClassification if self.kind == "ner" else DataCollatorWithPadding
        padding = "max_length" if self.pad_to_max_length else "longest"
        padder: Callable[[list[dict[str, Any]]], Any] = collate(
            self.tokenizer, padding=padding, max_length=self.max_length if self.pad_to_max_length else None
        )
        return padder

    def score(self, predictions: Any, label_ids: Any) -> dict[str, Any]:
        """Score predictions.

        Args:
            predictions: Logits of shape `(examples, tokens, labels)` or `(examples, labels)`, or label ids without the
                last axis. Of a tuple, the first item is used.
            label_ids: The correct label ids, -100 where no label counts.

        Returns:
            `accuracy`, `macro_f1`, `weighted_f1`, `entity_f1` (None for classification) and `per_class`, as defined in
            `metric.scores`.
        """
        # Some models return further outputs after the logits.
        predicted = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)
        expected = np.asarray(label_ids)
        if predicted.ndim > expected.ndim:
            predicted = predicted.argmax(axis=-1)
        names = np.asarray(self.labels, dtype=object)
        if self.kind == "classification":
            return class_scores(names[expected].tolist(), names[predicted].tolist())
        counts = expected != IGNORED
        return tag_scores(
            [names[row[keep]].tolist() for row, keep in zip(expected, counts, strict=True)],
            [names[row[keep]].tolist() for row, keep in zip(predicted, counts, strict=True)],
        )

    def compute_metrics(self, evaluated: EvalPrediction) -> dict[str, float]:
        """Return the scores that are single numbers; pass this method to `Trainer(compute_metrics=...)`."""
        scores = self.score(evaluated.predictions, evaluated.label_ids)
        return {name: value for name, value in scores.items() if isinstance(value, float)}
