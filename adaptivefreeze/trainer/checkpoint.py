"""The state of freezing in a Trainer checkpoint: two files in the folder of the checkpoint.

`freezing.json` holds the policy with its state, the timeline and the learning rates. `freezing.safetensors` holds the
signals measured so far and the optimizer state of frozen parameters. The Trainer offers to store the state of a
callback in `trainer_state.json`, but with `restore_callback_states_from_checkpoint=True` it then replaces the callback
by a new one that it builds from JSON arguments: the object that the user holds would not be the one that trains.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..policies import Policy

logger = logging.getLogger(__name__)

STATE_FILE = "freezing.json"
TENSORS_FILE = "freezing.safetensors"


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
        tensors: Signals and optimizer state.
    """

    policy: str
    policy_class: str
    policy_state: dict[str, Any]
    timeline: list[dict[str, Any]]
    learning_rates: dict[str, float]
    pace: dict[str, float]
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False)

    def save(self, folder: Path) -> None:
        """Write the files. The JSON file is written last, so that it exists only if both are complete."""
        if not folder.is_dir():
            logger.warning("The freezing state is not saved: there is no checkpoint folder %s.", folder)
            return
        state = asdict(self)
        del state["tensors"]
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
        """Read the files in `folder`. None if there are none."""
        path = folder / STATE_FILE
        if not path.exists():
            return None
        tensors = load_file(folder / TENSORS_FILE) if (folder / TENSORS_FILE).exists() else {}
        return cls(**json.loads(path.read_text()), tensors=tensors)


def class_name(policy: Policy) -> str:
    """Return the name by which a checkpoint identifies the class of a policy."""
    return type(policy).__qualname__


def load_run(folder: Path | None, policy: Policy) -> SavedRun | None:
    """Return the run of `policy` that a checkpoint holds, or None, with a warning, if it holds none.

    Args:
        folder: The checkpoint that training resumes from, or None if it is unknown.
        policy: The policy of the present run. It is not built from the checkpoint, so it need not be registered.
    """
    saved = None if folder is None else SavedRun.load(folder)
    if saved is None:
        logger.warning("The checkpoint holds no freezing state: %s starts anew.", policy)
        return None
    if (saved.policy, saved.policy_class) != (str(policy), class_name(policy)):
        logger.warning(
            "The checkpoint was written under the policy %s: %s starts anew.",
            saved.policy if saved.policy != str(policy) else f"{saved.policy} ({saved.policy_class})",
            policy,
        )
        return None
    return saved
