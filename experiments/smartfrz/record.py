"""Record weight samples of each block during full fine-tuning, and its similarity to its final state."""

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
from adaptivefreeze.policies.arguments import intervals
from adaptivefreeze.signals.activations import block_outputs
from adaptivefreeze.signals.samples import WeightSamples
from adaptivefreeze.trainer.hooks import steps_per_epoch

PROBE_EXAMPLES = 32
PROBE_TOKENS = 512  # upper limit; taken evenly from the tokens of the probe batch


@dataclass(frozen=True)
class Record:
    """One recorded run.

    Attributes:
        samples: weight samples as read from the signal, (decision points, blocks, values).
        similarity: linear CKA between a block's outputs on the probe batch and its outputs at the end of training,
            (decision points, blocks).
        about: data set, model, seed and settings of the run.
    """

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
    """Fine-tune the task's model with nothing frozen and record it; `seed` determines head, dropout and data order."""
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
    """Records weight samples and block outputs at the decision points of `SmartFRZ`."""

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
        """Return the outputs of each block on the probe tokens, (tokens, hidden)."""
        device = next(self._model.parameters()).device
        found = block_outputs(
            self._model, self._stack.blocks, {name: value.to(device) for name, value in self._probe.items()}
        )
        return [found[unit.name].flatten(0, 1)[self._tokens.to(device)].float().cpu() for unit in self._stack.blocks]


def linear_cka(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the linear centred kernel alignment, from 0 to 1, of two representations, (examples, width) each.

    It is invariant to rotation and scaling of either one (Kornblith et al. 2019, arXiv 1905.00414).
    """
    a, b = a.double() - a.double().mean(dim=0), b.double() - b.double().mean(dim=0)
    return float((b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))
