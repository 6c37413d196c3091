"""The state of freezing in a Trainer checkpoint: two files in the folder of the checkpoint.

`freezing.json` holds the policy with its state, the timeline and the learning rates. `freezing.safetensors` holds the
signals measured so far, the optimizer state of frozen parameters, and the losses of the examples under a sieve. The
Trainer offers to store the state of a callback in `trainer_state.json`, but with
`restore_callback_states_from_checkpoint=True` it then replaces the callback by a new one that it builds from JSON
arguments: the object that the user holds would not be the one that trains.

They are written before `trainer_state.json`, and before the Trainer deletes earlier checkpoints. A process that ends in
between leaves a checkpoint without `trainer_state.json`, from which the Trainer does not resume.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.trainer import TRAINER_STATE_NAME

from ..errors import RequestError
from ..model.timeline import Timeline
from ..policies import Policy

logger = logging.getLogger(__name__)

STATE_FILE = "freezing.json"
TENSORS_FILE = "freezing.safetensors"
_DEFAULTS = (None, 0, "exact")  # of the settings of a cache


@dataclass(frozen=True)
class SavedRun:
    """The state of a freezing run after some step.

    Attributes:
        policy: `str(policy)`.
        policy_class: Qualified name of the class of the policy.
        policy_state: The `state_dict` of the policy.
        timeline: The timeline as JSON. Its last mask is the one in force.
        learning_rates: Factors on the learning rates of units.
        pace: The `state_dict` of the schedule's pace.
        ended: Whether the policy has ended the training.
        settings: Settings of the callback that affect the weights: `eval_frozen` and `cache`.
        cache: The `state_dict` of the cache session. Empty without a cache.
        without_state: Names of the parameters for which the optimizer holds no state.
        sieve: The `state_dict` of the data sieve. Empty without one.
        tensors: Signals, optimizer state, and what is known of the training examples.
    """

    policy: str
    policy_class: str
    policy_state: dict[str, Any]
    timeline: list[dict[str, Any]]
    learning_rates: dict[str, float]
    pace: dict[str, float]
    ended: bool
    settings: dict[str, Any]
    cache: dict[str, Any]
    without_state: list[str]
    sieve: dict[str, int] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False)

    @property
    def depth(self) -> int:
        """Number of blocks of the model."""
        return Timeline.from_json(self.timeline)[-1].mask.depth

    def is_of(self, policy: Policy) -> bool:
        """Whether it was written under `policy`, or an equal one."""
        return (self.policy, self.policy_class) == (str(policy), class_name(policy))

    def save(self, folder: Path) -> None:
        """Write the files. The JSON file is written last, so that it exists only if both are complete."""
        if not folder.is_dir():
            logger.warning("The freezing state is not saved: there is no checkpoint folder %s.", folder)
            return
        state = {**vars(self), "tensors": sorted(self.tensors)}
        (folder / STATE_FILE).unlink(missing_ok=True)
        (folder / TENSORS_FILE).unlink(missing_ok=True)
        if self.tensors:
            part = folder / f"{TENSORS_FILE}.part"
            save_file({name: value.contiguous() for name, value in self.tensors.items()}, part)
            os.replace(part, folder / TENSORS_FILE)
        part = folder / f"{STATE_FILE}.part"
        part.write_text(json.dumps(state))
        os.replace(part, folder / STATE_FILE)

    @classmethod
    def load(cls, folder: Path) -> SavedRun | None:
        """Read the files in `folder`. None if there are none.

        Raises:
            RequestError: If they are incomplete or damaged.
        """
        path = folder / STATE_FILE
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text())
            names = state.pop("tensors")
            saved = cls(**state)
            Timeline.from_json(saved.timeline)[-1]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _damaged(path) from error
        if not names:
            return saved
        path = folder / TENSORS_FILE
        if not path.exists():
            raise _incomplete(path)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path) from error
        if sorted(tensors) != names:
            raise _damaged(path)
        return cls(**state, tensors=tensors)


def class_name(policy: Policy) -> str:
    """Return the name by which a checkpoint identifies the class of a policy."""
    return type(policy).__qualname__


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Return the settings of a callback as they are written in its arguments."""
    cache = settings["cache"]
    if cache is not None:
        cache = (
            f"PrefixCache({', '.join(f'{name}={value!r}' for name, value in cache.items() if value not in _DEFAULTS)})"
        )
    return f"eval_frozen={settings['eval_frozen']} and cache={cache}"


def load_run(folder: Path | None, policy: Policy, *, depth: int) -> SavedRun | None:
    """Return the run of `policy` that a checkpoint holds, or None, with a warning, if it holds none.

    Args:
        folder: The checkpoint that training resumes from, or None if it is unknown.
        policy: The policy of the present run. It is not built from the checkpoint, so it need not be registered.
        depth: Number of blocks of the model.

    Raises:
        RequestError: If the checkpoint is damaged, or of a model with another number of blocks.
    """
    saved = None if folder is None else SavedRun.load(folder)
    if saved is None:
        logger.warning(
            "The checkpoint %s holds no freezing state, because it was written without a FreezeCallback or %s was "
            "removed: %s starts anew. To continue an earlier policy, resume from a checkpoint with %s.",
            *(folder or "", STATE_FILE, policy, STATE_FILE),
        )
        return None
    refuse_other_depth(folder, saved, depth)
    if not saved.is_of(policy):
        logger.warning(
            "The checkpoint was written under the policy %s: %s starts anew.",
            saved.policy if saved.policy != str(policy) else f"{saved.policy} ({saved.policy_class})",
            policy,
        )
        return None
    return saved


def refuse_other_depth(folder: Path | None, saved: SavedRun, depth: int) -> None:
    """Raise `RequestError` if the model of a checkpoint has not `depth` blocks."""
    if saved.depth != depth:
        raise RequestError(
            f"the checkpoint {folder} is of a model with {saved.depth} blocks, and this model has {depth}: resume "
            "with the model that it was written with."
        )


def refuse_incomplete(folder: Path, error: Exception) -> None:
    """Raise `RequestError` from `error` if the Trainer has not completed the checkpoint in `folder`."""
    path = folder / TRAINER_STATE_NAME
    if folder.is_dir() and not path.exists():
        raise _incomplete(path) from error


def _incomplete(path: Path) -> RequestError:
    return RequestError(
        f"the checkpoint {path.parent} is incomplete, {path.name} is missing: resume from an earlier checkpoint."
    )


def _damaged(path: Path) -> RequestError:
    return RequestError(f"{path} is damaged: resume from an earlier checkpoint.")
