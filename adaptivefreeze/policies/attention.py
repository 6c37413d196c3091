"""The predictor of SmartFRZ: a small attention network over the history of a block's weights, in NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

Array = NDArray[np.float64]

FEATURES = ("log movement", "log last step", "turn", "return", "age")
_SMALLEST = 1e-7  # lower bound of a movement, so that its logarithm is finite


@dataclass
class History:
    """The history of one block, from which the predictor's features are computed.

    The sampled positions mean something different in each model, so features are invariant to them: how far the values
    have moved together, and whether they continue in the same direction. A row describes one decision point: the log
    of the root mean square of the movement since the start; the log of that of the last step, relative to it; the
    cosine between the last two steps; and the cosine between the last step and the movement before it.

    Args:
        rows: The last rows, (decision points, 4).
        last: Movement of each sampled value at the last decision point.
        step: Difference between the last two movements.
    """

    rows: list[list[float]] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)

    def add(self, samples: Sequence[float], window: int) -> None:
        """Add a decision point.

        The first one adds no row, because there is no earlier one to compare with.

        Args:
            samples: Movement of each sampled value since the start of training.
            window: Number of rows to keep.
        """
        now = np.asarray(samples, dtype=np.float64)
        if self.last:
            before = np.asarray(self.last, dtype=np.float64)
            step = now - before
            movement = _size(now)
            turn = _cosine(step, np.asarray(self.step, dtype=np.float64)) if self.step else 0.0
            self.rows.append(
                [float(np.log(movement)), float(np.log(_size(step) / movement)), turn, _cosine(step, before)]
            )
            del self.rows[:-window]
            self.step = step.tolist()
        self.last = now.tolist()


@dataclass(frozen=True)
class AttentionPredictor:
    """Weights of the predictor, for F features and a width of d.

    Each row of a history, with its age in decision points and standardized, becomes a token h = tanh(row · embed +
    bias). The latest token attends to all tokens. The attention output and the latest token are mapped to the
    probability that the block has converged. The network has no positional parameters, so a history may have any
    length.

    Args:
        mean: Mean of each feature, (F,).
        deviation: Standard deviation of each feature, (F,).
        embed: Projection of features, (F, d).
        bias: Bias of the projection, (d,).
        query: Query projection, (d, d).
        key: Key projection, (d, d).
        value: Value projection, (d, d).
        out: Output projection, (2 d,).
        offset: Output bias, ().
        provenance: How the predictor was trained.

    Raises:
        ValueError: When an array has another shape or a value that is not finite.
    """

    mean: Array
    deviation: Array
    embed: Array
    bias: Array
    query: Array
    key: Array
    value: Array
    out: Array
    offset: Array
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        width = self.bias.size
        one, square = (len(FEATURES),), (width, width)
        shapes = {
            "mean": one, "deviation": one, "embed": (*one, width), "bias": (width,), "query": square, "key": square,
            "value": square, "out": (2 * width,), "offset": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite numbers of shape {shape}, but has shape {array.shape}")

    def probability(self, rows: Sequence[Sequence[float]]) -> float:
        """Return the probability that a block has converged.

        Args:
            rows: The rows of a `History`, at least one, the latest last.
        """
        tokens = np.tanh((with_age(rows) - self.mean) / self.deviation @ self.embed + self.bias)
        scores = tokens @ self.key @ (tokens[-1] @ self.query) / np.sqrt(self.bias.size)
        weights = np.exp(scores - scores.max())
        found = weights / weights.sum() @ tokens @ self.value
        logit = np.concatenate([found, tokens[-1]]) @ self.out + self.offset
        return float((1 + np.tanh(logit / 2)) / 2)  # the logistic function, without overflow

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for `read_predictor`."""
        return {f.name: v.tolist() if isinstance(v := getattr(self, f.name), np.ndarray) else v for f in fields(self)}


def with_age(rows: Sequence[Sequence[float]]) -> Array:
    """Append a column with the age of each row: (decision points, F − 1) -> (decision points, F)."""
    found = np.asarray(rows, dtype=np.float64)
    return np.column_stack([found, np.arange(len(found))[::-1]])


def read_predictor(path: str = "") -> AttentionPredictor:
    """Read a predictor.

    Args:
        path: A JSON file; empty for the predictor that comes with the package.

    Raises:
        RequestError: When the file cannot be read or holds no predictor.
    """
    source = Path(path) if path else files("adaptivefreeze.policies").joinpath("data/smartfrz.json")
    try:
        stored = json.loads(source.read_text(encoding="utf-8"))
        arrays = {f.name: np.asarray(stored[f.name], dtype=np.float64) for f in fields(AttentionPredictor)[:-1]}
        return AttentionPredictor(**arrays, provenance=dict(stored["provenance"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise RequestError(
            f"smartfrz: {path!r} is no predictor that can be used ({reason}): give a file that "
            "experiments/smartfrz/train_predictor.py wrote, or leave predictor out to use the one in the package."
        ) from error


def _size(values: Array) -> float:
    return max(float(np.sqrt(np.mean(values**2))), _SMALLEST)


def _cosine(a: Array, b: Array) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
