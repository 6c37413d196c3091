"""DataSieve: chooses the examples that each epoch trains, and how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from ..errors import RequestError
from ..policies import Policy

_SCORES, _WEIGHTS = "sieve/scores", "sieve/weights"


class DataSieve:
    """Leaves learnt examples out of the epochs of one training run. `adaptivefreeze.policies.Sieve` states the rule.

    Args:
        policy: A policy with a sieve.
        examples: Number of training examples.
        epochs: Number of epochs planned.
        seed: Seed of the run. With the number of the epoch, it decides which examples are left out.

    Attributes:
        epoch: The epoch in progress, counted from 0.
        batches: Number of its batches trained so far.
        skipped: Number of examples left out so far, all epochs together.
        order: The examples that the epoch trains, in the order of training.
    """

    def __init__(self, policy: Policy, *, examples: int, epochs: float, seed: int) -> None:
        assert policy.sieve is not None
        self.epoch = self.batches = self.skipped = 0
        self.order: Sequence[int] = ()
        self._policy = policy
        self._rule = policy.sieve
        self._epochs = epochs
        self._seed = seed
        self._scores = torch.full((examples,), math.nan)  # on the device of the losses, so that no step waits for it
        self._weights = torch.ones(examples)  # 0 for the examples that are left out

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self._weights)

    @property
    def kept(self) -> int:
        """Number of examples that the epoch trains."""
        return int(self._weights.count_nonzero())

    def begin_epoch(self, epoch: int, *, fewest: int = 1) -> None:
        """Choose the examples of an epoch.

        Args:
            epoch: Number of the epoch, counted from 0.
            fewest: Number of examples below which all are used.
        """
        self.epoch, self.batches = epoch, 0
        self._weights = torch.ones(self.examples)
        if epoch + 1 > self._rule.until * self._epochs:
            return
        scores = self._scores.cpu().double().numpy()
        scored = np.flatnonzero(np.isfinite(scores))
        if not len(scored):
            return
        generator = np.random.default_rng((self._seed, epoch))
        if self._rule.blind:
            scores[scored] = generator.permutation(scores[scored])
        learnt = scored[scores[scored] < scores[scored].mean()]
        count = math.ceil((1 - self._rule.share) * len(learnt) - 1e-9)
        if not len(learnt) or self.examples - len(learnt) + count < fewest:
            return
        self._weights[learnt] = 0
        self._weights[generator.choice(learnt, count, replace=False)] = len(learnt) / count
        self.skipped += len(learnt) - count

    def next_batch(self, size: int) -> torch.Tensor:
        """Return the numbers of the examples in the next batch of the epoch."""
        first = self.batches * size
        self.batches += 1
        return torch.tensor(self.order[first : first + size])

    def weights(self, batch: torch.Tensor) -> torch.Tensor:
        """Return how much the loss of each example of a batch counts."""
        return self._weights[batch]

    def record(self, batch: torch.Tensor, losses: torch.Tensor) -> None:
        """Store the losses of the examples of a batch. One that is not finite counts as not known."""
        self._scores = self._scores.to(losses.device)
        self._scores[batch.to(losses.device)] = losses.to(self._scores.dtype)

    def state_dict(self, batches: int) -> dict[str, int]:
        """Return the state as plain JSON, without the tensors.

        Args:
            batches: Number of batches in the epoch. After the last one, the state is that before the next epoch.
        """
        over = self.batches >= batches
        return {
            "epoch": self.epoch + over,
            "batches": 0 if over else self.batches,
            "skipped": self.skipped,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the losses and the weights of all examples, for a checkpoint."""
        return {_SCORES: self._scores.cpu(), _WEIGHTS: self._weights}

    def load(self, state: Mapping[str, int], tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state_dict` and `tensors` returned.

        Raises:
            RequestError: If they are of another number of examples.
        """
        if len(tensors[_SCORES]) != self.examples:
            raise RequestError(
                f"the checkpoint was written with {len(tensors[_SCORES]):,} training examples, and there are "
                f"{self.examples:,}: {self._policy} resumes with the same data only."
            )
        self.epoch, self.batches, self.skipped = state["epoch"], state["batches"], state["skipped"]
        self._scores, self._weights = tensors[_SCORES], tensors[_WEIGHTS]


class SievedSampler(Sampler[int]):
    """The examples that a sampler yields, without those that are left out. Its length stays that of the sampler.

    Args:
        sampler: Yields every example once.
        sieve: The sieve, which receives the order.
    """

    def __init__(self, sampler: Sampler[int], sieve: DataSieve) -> None:
        self.sampler = sampler
        self._sieve = sieve

    def __iter__(self) -> Iterator[int]:
        every = list(self.sampler)
        if sorted(every) != list(range(self._sieve.examples)):
            raise RequestError(
                f"+sieve needs a sampler that yields each of the {self._sieve.examples:,} training examples once in an "
                f"epoch, and {type(self.sampler).__name__} does not: choose a policy without a sieve."
            )
        counts = self._sieve.weights(torch.tensor(every)).tolist()
        self._sieve.order = [example for example, weight in zip(every, counts, strict=True) if weight]
        yield from self._sieve.order

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the sampler, if it has one."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
