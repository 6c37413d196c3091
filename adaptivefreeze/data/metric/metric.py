"""The scores as a metric of `evaluate`, loaded from this folder without network access."""

from typing import Any

import datasets
import evaluate

from .scores import class_scores, tag_scores

_DESCRIPTION = """\
Accuracy, macro F1 and weighted F1 over words and their IOB2 tags (O included) with seqeval's strict entity F1,
or over texts and their classes; precision, recall, F1 and support of each entity class, or class.
"""

_INPUTS = """\
predictions, references: sentences of IOB2 tags as lists of lists of strings, or classes as a list of strings or
integers.
"""

_CITATION = """\
@misc{seqeval, title={{seqeval}: A Python framework for sequence labeling evaluation}, author={Hiroki Nakayama},
year={2018}, url={https://github.com/chakki-works/seqeval}}
@article{scikit-learn, title={Scikit-learn: Machine Learning in {P}ython}, author={Pedregosa, F. and others},
journal={Journal of Machine Learning Research}, volume={12}, pages={2825--2830}, year={2011}}
"""


class TagAndClassScores(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Scores of tags or of classes, depending on the type of the inputs."""

    def _info(self) -> evaluate.MetricInfo:
        kinds = (
            datasets.List(datasets.Value("string")),
            datasets.Value("string"),
            datasets.Value("int64"),
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[datasets.Features({"predictions": kind, "references": kind}) for kind in kinds],
        )

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, Any]:
        scores = tag_scores if isinstance(references[0], list) else class_scores
        return scores(references, predictions)
