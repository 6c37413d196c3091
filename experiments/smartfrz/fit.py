"""Fits the attention predictor of `SmartFRZ` to recorded runs, and says how often it is right on others."""

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
DIGITS = 5  # significant ones, kept of each weight: the file stays small, and what is judged is what is stored


@dataclass(frozen=True)
class Examples:
    """`rows` (examples, window, features), `finished` (examples,), and the `clock` of each: its tenth of the run."""

    rows: np.ndarray
    finished: np.ndarray
    clock: np.ndarray

    def __len__(self) -> int:
        return len(self.finished)


def examples_of(records: Sequence[Record], window: int, alike: float) -> Examples:
    """Every block but the last, which never freezes, at every moment with a whole history.

    Finished is a block whose similarity to its finished self has reached `alike`.
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
    """What `AttentionPredictor` computes, for many histories at once, in double precision, with gradients."""

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
        """(examples, moments, features) -> (examples,) logits."""
        tokens = torch.tanh((rows - self.mean) / self.deviation @ self.embed + self.bias)
        latest = tokens[:, -1]
        scores = torch.einsum("emd,ed->em", tokens @ self.key, latest @ self.query) / self.bias.numel() ** 0.5
        found = torch.einsum("em,emd->ed", scores.softmax(dim=1), tokens) @ self.value
        return torch.cat([found, latest], dim=1) @ self.out + self.offset

    def predictor(self, provenance: Mapping[str, Any]) -> AttentionPredictor:
        """The same network for the package, its weights rounded."""
        arrays = {name: _rounded(value.detach().numpy()) for name, value in self.state_dict().items()}
        return AttentionPredictor(**arrays, provenance=provenance)


def fit(examples: Examples, *, steps: int = 200, seed: int = 0) -> Network:
    """The network that tells finished blocks from others with the least cross-entropy, a little weight decay added."""
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
    """How often the predictor is right on runs that it never saw, beside what is right without looking at weights.

    `base_rate`: always saying what is more frequent. `clock_accuracy`: saying what is more frequent at this tenth of a
    run, as `clock` has it from other runs. `wrongly_frozen`: share of the unfinished that the predictor calls finished.
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
    """Tenth of a run -> whether most blocks are finished then."""
    return {
        int(tenth): bool(examples.finished[examples.clock == tenth].mean() >= 0.5)
        for tenth in np.unique(examples.clock)
    }


def _rounded(array: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(array)
