"""The small attention network that tells from the history of a block's weights whether it is finished, in numpy."""

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
_SMALLEST = 1e-7  # of a movement: what has not moved has a logarithm all the same


@dataclass
class History:
    """What is remembered of one block: its last `rows`, and the samples and the step that the next row starts from.

    The places that are sampled mean something different in each model, so that nothing learned about one of them
    carries over; how far all have moved, and whether they go on in the same direction, does. A row is, of one moment:
    the log of the root mean square of the movement since the start; the log of that of the last step, as a share of
    it; the cosine between the last two steps; and the cosine between the last step and the movement before it.
    """

    rows: list[list[float]] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)

    def add(self, samples: Sequence[float], window: int) -> None:
        """A moment: `samples` is how far each sampled value has moved since the start. Keeps `window` rows.

        The first moment makes no row: a block that has been thawed did not get there in one step.
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
    """Weights of the network, F features and d hidden values wide, and where they come from.

    Each row of a history, with its age in moments and standardised, becomes a token, h = tanh(row · embed + bias);
    the latest token attends to all; and what it finds, beside itself, is mapped to the probability that the block is
    finished. `mean` and `deviation` are (F,), `embed` (F, d), `bias` (d,), `query`, `key` and `value` (d, d), `out`
    (2 d,), `offset` (). A history may have any length, the network having no place that depends on it.
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
        """That a block with this history is finished; `rows` are those of a `History`, at least one, latest last."""
        tokens = np.tanh((with_age(rows) - self.mean) / self.deviation @ self.embed + self.bias)
        scores = tokens @ self.key @ (tokens[-1] @ self.query) / np.sqrt(self.bias.size)
        weights = np.exp(scores - scores.max())
        found = weights / weights.sum() @ tokens @ self.value
        logit = np.concatenate([found, tokens[-1]]) @ self.out + self.offset
        return float((1 + np.tanh(logit / 2)) / 2)  # the logistic function, without overflow

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for `read_predictor`."""
        return {f.name: v.tolist() if isinstance(v := getattr(self, f.name), np.ndarray) else v for f in fields(self)}


def with_age(rows: Sequence[Sequence[float]]) -> Array:
    """(moments, F − 1) -> (moments, F): the last column counts the moments since."""
    found = np.asarray(rows, dtype=np.float64)
    return np.column_stack([found, np.arange(len(found))[::-1]])


def read_predictor(path: str = "") -> AttentionPredictor:
    """The predictor in the JSON file at `path`; without one, that which comes with the package.

    Raises `RequestError` for a file that cannot be read, or that holds no predictor.
    """
    source = Path(path) if path else files("adaptivefreeze.policies").joinpath("data/smartfrz.json")
    try:
        stored = json.loads(source.read_text(encoding="utf-8"))
        arrays = {f.name: np.asarray(stored[f.name], dtype=np.float64) for f in fields(AttentionPredictor)[:-1]}
        return AttentionPredictor(**arrays, provenance=dict(stored["provenance"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise RequestError(
            f"smartfrz: {path!r} is no predictor that can be used ({reason}): give a file that "
            "experiments/smartfrz/train_predictor.py wrote, or leave predictor out for the one that is shipped."
        ) from error


def _size(values: Array) -> float:
    return max(float(np.sqrt(np.mean(values**2))), _SMALLEST)


def _cosine(a: Array, b: Array) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
