"""Scores of tags or classes by scikit-learn and seqeval: accuracy, macro, weighted and entity F1.

`macro_f1` is the unweighted mean over all tags or classes in the references or predictions. `weighted_f1` is the mean
weighted by their frequency in the references, as in scikit-learn's classification report. A score whose denominator is
0 is 0.
"""

from collections.abc import Hashable, Sequence
from typing import Any


def tag_scores(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Score sentences of IOB2 tags.

    Args:
        references: The correct tags of each sentence.
        predictions: The predicted tags, as many per sentence.

    Returns:
        `accuracy`, `macro_f1` and `weighted_f1` over words and their tags, including `O`; `entity_f1` over entities
        with correct boundaries and class (seqeval, strict IOB2, micro average); and `per_class` with `precision`,
        `recall`, `f1` and `support` of the entities of each class.
    """
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    flat_references = [tag for tags in references for tag in tags]
    flat_predictions = [tag for tags in predictions for tag in tags]
    scores = _word_scores(flat_references, flat_predictions)[0]
    # seqeval's report raises an error if there are no entities at all.
    if all(tag == "O" for tag in flat_references) and all(tag == "O" for tag in flat_predictions):
        return {**scores, "entity_f1": 0.0, "per_class": {}}
    report = classification_report(
        list(references), list(predictions), mode="strict", scheme=IOB2, output_dict=True, zero_division=0
    )
    averages = {"micro avg", "macro avg", "weighted avg"}
    return {
        **scores,
        "entity_f1": float(report["micro avg"]["f1-score"]),
        "per_class": {
            name: {
                "precision": float(row["precision"]),
                "recall": float(row["recall"]),
                "f1": float(row["f1-score"]),
                "support": int(row["support"]),
            }
            for name, row in report.items()
            if name not in averages
        },
    }


def class_scores(references: Sequence[Hashable], predictions: Sequence[Hashable]) -> dict[str, Any]:
    """Score the classes of texts.

    Args:
        references: The correct class of each text.
        predictions: The predicted class of each text.

    Returns:
        The keys of `tag_scores`, over texts and their classes; `entity_f1` is None.
    """
    scores, per_class = _word_scores(references, predictions)
    return {**scores, "entity_f1": None, "per_class": per_class}


def _word_scores(references: Sequence[Any], predictions: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores over single labels, together and per label."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    names = sorted(set(references) | set(predictions))
    numbers = {name: number for number, name in enumerate(names)}  # comparing integers is much faster
    true = [numbers[name] for name in references]
    predicted = [numbers[name] for name in predictions]
    columns = precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=0)
    per_class = {
        str(name): {"precision": float(p), "recall": float(r), "f1": float(f1), "support": int(support)}
        for name, p, r, f1, support in zip(names, *columns, strict=True)
    }
    scores = {
        "accuracy": float(accuracy_score(true, predicted)),
        "macro_f1": sum(row["f1"] for row in per_class.values()) / len(per_class),
        "weighted_f1": sum(row["f1"] * row["support"] for row in per_class.values()) / len(true),
    }
    return scores, per_class
