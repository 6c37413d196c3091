"""The metrics that a run reports on the validation split."""

from __future__ import annotations

SCORES = ("macro_f1", "entity_f1", "weighted_f1", "accuracy")
LOSS = "loss"


def reported_metrics(kind: str) -> tuple[str, ...]:
    """Return the metrics of a task, `ner` or `classification`."""
    return (*(name for name in SCORES if name != "entity_f1" or kind == "ner"), LOSS)
