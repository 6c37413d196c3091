"""A task: what is trained on what, ready for a Trainer, and how the result is scored."""

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
from .encode import IGNORED
from .metric.scores import class_scores, tag_scores
from .models import ModelSource, build_model
from .tokenization import Coverage

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class Task:
    """One data set, tokenised for one model; ``load_task`` makes it.

    - ``dataset``: the folder's or the hub's name, or ``demo``
    - ``fingerprint``: sha256 of what is trained on and scored: the examples in use of all splits, their token
      ids, the labels, the max length and the padding; equal in every process
    - ``labels``: of all splits together; a label's place is its id
    - ``train``, ``validation``, ``test``: ``input_ids``, ``attention_mask``, maybe ``token_type_ids`` (lists of
      one int a token), and ``labels`` (for NER an id a token, -100 where none counts; else one id)
    - ``coverage``: how the tokenizer copes, counted over all three splits
    - ``warnings``: sentences that a reader of the results must see
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
        """The model as it was asked for: hub id, folder or ``demo``."""
        return self.source.name

    @property
    def train_examples(self) -> int:
        return len(self.train)

    def new_model(self, seed: int) -> PreTrainedModel:
        """The pretrained model with a head for ``labels``, initialised under ``seed``; bit-identical each time.

        Leaves the caller's random state as it was. Raises RequestError where the weights cannot be loaded.
        """
        pad = self.tokenizer.pad_token_id
        return build_model(self.source, self.kind, self.labels, pad_token_id=pad, seed=seed)

    def collator(self) -> Callable[[list[dict[str, Any]]], Any]:
        """Pads a batch to its longest example, or to ``max_length`` where ``pad_to_max_length``."""
        collate = DataCollatorForTokenClassification if self.kind == "ner" else DataCollatorWithPadding
        padding = "max_length" if self.pad_to_max_length else "longest"
        padder: Callable[[list[dict[str, Any]]], Any] = collate(
            self.tokenizer, padding=padding, max_length=self.max_length if self.pad_to_max_length else None
        )
        return padder

    def score(self, predictions: Any, label_ids: Any) -> dict[str, Any]:
        """``accuracy``, ``macro_f1``, ``weighted_f1``, ``entity_f1`` (None for classification), ``per_class``.

        ``predictions`` are logits, ``(examples, tokens, labels)`` or ``(examples, labels)``, or the ids of the
        likeliest labels, without the last axis; ``label_ids`` have the shape of those ids, -100 where none counts.
        What each score means is written in ``metric.scores``.
        """
        # Some models return more than logits; those come first.
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
        """The scores that are one number each, for ``Trainer(compute_metrics=...)``, which logs them as ``eval_*``."""
        scores = self.score(evaluated.predictions, evaluated.label_ids)
        return {name: value for name, value in scores.items() if isinstance(value, float)}
