"""Fit the attention predictor of `SmartFRZ` to recorded runs and evaluate it on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from record import Record
from torch import nn

from adaptivefreeze.policies.attention import FEATURES, AttentionPredictor, History, with_age

HIDDEN = 8
DIGITS = 5  # significant digits of each stored weight; the evaluation uses the rounded weights too


@dataclass(frozen=True)
class Examples:
    """Training examples.

    Attributes:
        rows: histories, (examples, window, features).
        finished: labels, (examples,).
        clock: the tenth of the run in which each example lies, (examples,).
    """

    rows: np.ndarray
    finished: np.ndarray
    clock: np.ndarray

    def __len__(self) -> int:
        return len(self.finished)


def examples_of(records: Sequence[Record], window: int, alike: float) -> Examples:
    """Return one example per block and decision point with a complete history.

    The last block is excluded, because it never freezes. A block is labelled finished when its similarity to its
    state at the end of training has reached `alike`.
    """
    rows, finished, clock = [], [], []
    for record in records:
        moments, blocks = record.similarity.shape
        for block in range(blocks - 1):
            history = History()
            for moment in range(moments):
                history.add(record.samples[moment, block].tolist(), window)
                if len(history.rows) == window:
                    rows.append(with_age(history.rows))
                    finished.append(record.similarity[moment, block] >= alike)
                    clock.append(10 * moment // moments)
    return Examples(np.asarray(rows), np.asarray(finished, dtype=bool), np.asarray(clock))


class Network(nn.Module):
    """The computation of `AttentionPredictor` for a batch of histories, in double precision, with gradients."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, width: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("deviation", torch.from_numpy(deviation))

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, dtype=torch.float64) / shape[0] ** 0.5)

        self.embed = drawn(len(FEATURES), width)
        self.bias = nn.Parameter(torch.zeros(width, dtype=torch.float64))
        self.query, self.key, self.value = drawn(width, width), drawn(width, width), drawn(width, width)
        self.out = drawn(2 * width)
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map histories (examples, window, features) to logits (examples,)."""
        tokens = torch.tanh((rows - self.mean) / self.deviation @ self.embed + self.bias)
        latest = tokens[:, -1]
        scores = torch.einsum("emd,ed->em", tokens @ self.key, latest @ self.query) / self.bias.numel() ** 0.5
        found = torch.einsum("em,emd->ed", scores.softmax(dim=1), tokens) @ self.value
        return torch.cat([found, latest], dim=1) @ self.out + self.offset

    def predictor(self, provenance: Mapping[str, Any]) -> AttentionPredictor:
        """Return the network as the package's predictor, with rounded weights."""
        arrays = {name: _rounded(value.detach().numpy()) for name, value in self.state_dict().items()}
        return AttentionPredictor(**arrays, provenance=provenance)


def fit(examples: Examples, *, steps: int = 200, seed: int = 0) -> Network:
    """Train a network to classify blocks as finished, by cross-entropy with weight decay."""
    torch.manual_seed(seed)
    flat = examples.rows.reshape(-1, len(FEATURES))
    network = Network(flat.mean(axis=0), flat.std(axis=0) + 1e-6)
    rows, wanted = torch.from_numpy(examples.rows), torch.from_numpy(examples.finished).double()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(rows), wanted).backward()
        optimizer.step()
    return network


def judge(predictor: AttentionPredictor, held_out: Examples, clock: Mapping[int, bool]) -> dict[str, Any]:
    """Return the predictor's accuracy on unseen runs, beside two guesses that do not use the weights.

    Args:
        predictor: the fitted predictor.
        held_out: examples from unseen runs.
        clock: for each tenth of a run, whether most blocks of the training runs are finished.

    Returns:
        `base_rate` is the accuracy of always guessing the more frequent label, `clock_accuracy` the accuracy of
        guessing by `clock`, and `wrongly_frozen` the share of unfinished examples that the predictor classifies as
        finished.
    """
    said = np.asarray([predictor.probability(rows[:, :-1]) >= 0.5 for rows in held_out.rows])
    by_clock = np.asarray([clock.get(int(tenth), True) for tenth in held_out.clock])
    share, unfinished = float(held_out.finished.mean()), ~held_out.finished
    return {
        "examples": len(held_out),
        "accuracy": round(float((said == held_out.finished).mean()), 3),
        "base_rate": round(max(share, 1 - share), 3),
        "clock_accuracy": round(float((by_clock == held_out.finished).mean()), 3),
        "wrongly_frozen": round(float(said[unfinished].mean()), 3) if unfinished.any() else None,
    }


def clock_of(examples: Examples) -> dict[int, bool]:
    """Return, for each tenth of a run, whether most blocks are finished."""
    return {
        int(tenth): bool(examples.finished[examples.clock == tenth].mean() >= 0.5)
        for tenth in np.unique(examples.clock)
    }


def _rounded(array: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(array)
