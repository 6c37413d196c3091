"""ExampleLosses: the loss of each example of a batch, and the loss of a batch whose examples count differently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import RequestError

IGNORED = -100
"""The label that counts for no loss."""


class ExampleLosses:
    """Computes losses of examples from the outputs of a model whose loss is the mean cross-entropy of its labels.

    The mean cross-entropy is compared with the loss of the model, in the first batch and in the first one of a step
    with several batches. That decides whether labels are those of the next token, as in a causal language model, and
    whether the mean is over the labels of the batch or over those of all batches of the step.

    Args:
        subject: What needs the losses, for messages.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._shifted: bool | None = None  # whether a label is that of the next token; None before the first batch
        self._per_step: bool | None = None  # whether the mean is over all batches of the step; None until that matters

    def weigh(
        self,
        loss: torch.Tensor,
        outputs: Any,
        labels: torch.Tensor | None,
        weights: torch.Tensor,
        items: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch whose examples count as `weights`, and the loss of each example.

        Args:
            loss: The loss of the batch with equal weights. It is returned as it is where all weights are 1.
            outputs: The outputs of the model, with logits of shape (batch, classes) or (batch, tokens, classes).
            labels: Labels of shape (batch,) or (batch, tokens).
            weights: Weights of shape (batch,), on the CPU.
            items: Number of labels in all batches of the optimizer step, if there are several and the Trainer counts
                them.

        Returns:
            The weighted loss, and the mean cross-entropy of the labels of each example, of shape (batch,). It is NaN
            for an example without labels, and for all while the loss is not finite.

        Raises:
            RequestError: If the loss is not the mean cross-entropy of the labels.
        """
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs[1]
        logits, labels = self._matching(logits, labels, len(weights))
        undecided = self._shifted is None or (self._per_step is None and items is not None)
        if undecided and not bool(loss.detach().isfinite()):
            return loss, torch.full((len(weights),), torch.nan)
        if undecided:
            self._compare(loss.detach(), logits.detach(), labels, items)
        weighted = bool((weights != 1).any())
        with torch.set_grad_enabled(weighted):
            sums, counts = _cross_entropy(logits, labels, shifted=bool(self._shifted))
        if weighted:
            items = items if self._per_step and items is not None else counts.sum()
            loss = loss + ((weights.to(sums.device) - 1) * sums).sum() / items
        return loss, sums.detach() / counts

    def _matching(self, logits: Any, labels: Any, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and labels in shapes that belong together."""
        if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor):
            missing = "labels" if isinstance(logits, torch.Tensor) else "logits"
            raise self._unsuitable(f"there are no {missing} that it can be computed from")
        if labels.is_floating_point() or logits.shape[:-1].numel() != labels.numel():
            raise self._unsuitable("the labels are not one class for each text or token")
        if len(logits) != examples:
            raise self._unsuitable(f"the data collator makes {len(logits)} rows of {examples} examples")
        return logits, labels.view(logits.shape[:-1]).to(logits.device)

    def _compare(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, items: Any) -> None:
        tolerance = max(1e-5, 8 * torch.finfo(loss.dtype).eps)
        found = []
        for shifted in (False, True)[: logits.dim() - 1]:
            sums, counts = _cross_entropy(logits, labels, shifted=shifted)
            for per_step, number in ((False, counts.sum()), (True, items)):
                mean = sums.sum() / (math.nan if number is None else number)
                if torch.isclose(mean, loss.to(mean.dtype), rtol=tolerance, atol=tolerance):
                    found.append((shifted, per_step))
        if not found:
            raise self._unsuitable("the loss of this model is not the mean cross-entropy of its labels")
        self._shifted = found[0][0]
        if items is not None and len({per_step for _, per_step in found}) == 1:
            self._per_step = found[0][1]

    def _unsuitable(self, reason: str) -> RequestError:
        return RequestError(
            f"{self._subject} needs the loss of each example, and {reason}: choose a policy without a sieve."
        )


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, *, shifted: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum over the labels of each example, and their number."""
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = nn.functional.cross_entropy(
        logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    examples = len(labels)
    return losses.view(examples, -1).sum(1), (labels != IGNORED).view(examples, -1).sum(1)
