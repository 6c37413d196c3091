"""Records a full fine-tuning: each block's weight samples at each moment, and how alike it is to the finished one."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from adaptivefreeze import find_blocks
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import Task
from adaptivefreeze.policies.base import intervals
from adaptivefreeze.signals.activations import block_outputs
from adaptivefreeze.signals.samples import WeightSamples
from adaptivefreeze.trainer.hooks import steps_per_epoch

PROBE_EXAMPLES = 32
PROBE_TOKENS = 512  # at most, evenly over all that the probe has


@dataclass(frozen=True)
class Record:
    """One run: `samples` (moments, blocks, values) as the signal gives them; `similarity` (moments, blocks), the
    linear CKA of a block's outputs on the probe batch with those of the same block when training had ended."""

    samples: np.ndarray
    similarity: np.ndarray
    about: dict[str, Any]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path, samples=self.samples, similarity=self.similarity, about=np.asarray(json.dumps(self.about))
        )

    @classmethod
    def load(cls, path: Path) -> Record:
        with np.load(path) as stored:
            return cls(stored["samples"], stored["similarity"], json.loads(str(stored["about"])))


def record_run(task: Task, seed: int, settings: StudySettings, moments_an_epoch: float) -> Record:
    """Fine-tune the task's model with nothing frozen; `settings` say how, `seed` decides head, dropout and order."""
    recorder = Recorder(task, moments_an_epoch)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=task.new_model(seed),
            args=settings.arguments(folder, seed),
            train_dataset=task.train,
            data_collator=task.collator(),
            processing_class=task.tokenizer,
            callbacks=[recorder],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    finished = recorder.outputs()
    similarity = [[linear_cka(a, b) for a, b in zip(views, finished, strict=True)] for views in recorder.views]
    about = {"dataset": task.dataset, "model": task.model, "seed": seed, "steps": trainer.state.global_step}
    about |= {"train_examples": task.train_examples, "learning_rate": settings.learning_rate}
    return Record(np.asarray(recorder.samples, dtype=np.float32), np.asarray(similarity, dtype=np.float32), about)


class Recorder(TrainerCallback):
    """Looks at the model at the moments at which `SmartFRZ` would be asked."""

    def __init__(self, task: Task, moments_an_epoch: float) -> None:
        rows = [task.validation[i] for i in range(min(PROBE_EXAMPLES, len(task.validation)))]
        self._probe = {name: value for name, value in task.collator()(rows).items() if name != "labels"}
        tokens = self._probe["attention_mask"].flatten().nonzero().flatten()
        self._tokens = tokens[torch.linspace(0, len(tokens) - 1, min(PROBE_TOKENS, len(tokens))).long()]
        self._moments_an_epoch = moments_an_epoch
        self.samples: list[list[list[float]]] = []
        self.views: list[list[torch.Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._model = kwargs["model"]
        self._stack = find_blocks(self._model)
        self._measure = WeightSamples(self._model, self._stack)
        epoch = steps_per_epoch(args, state, kwargs["train_dataloader"])
        self._moments = set(intervals(self._moments_an_epoch, state.max_steps, epoch))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self._moments:
            found = self._measure.read()
            self.samples.append([found[unit.name] for unit in self._stack.blocks])
            self.views.append(self.outputs())

    def outputs(self) -> list[torch.Tensor]:
        """Of each block, on the probe's tokens: (tokens, width)."""
        device = next(self._model.parameters()).device
        found = block_outputs(
            self._model, self._stack.blocks, {name: value.to(device) for name, value in self._probe.items()}
        )
        return [found[unit.name].flatten(0, 1)[self._tokens.to(device)].float().cpu() for unit in self._stack.blocks]


def linear_cka(a: torch.Tensor, b: torch.Tensor) -> float:
    """Linear centred kernel alignment of two views of the same examples, (examples, width) each: from 0 to 1.

    It is blind to a rotation and to the scale of either (Kornblith et al. 2019, arXiv 1905.00414).
    """
    a, b = a.double() - a.double().mean(dim=0), b.double() - b.double().mean(dim=0)
    return float((b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))
