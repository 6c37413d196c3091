"""Delta checkpoints: the trained tensors of a model alone, to be loaded onto the same base model."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import RequestError
from ..model.fingerprint import model_fingerprint
from .attach import NAME, add_side_network, find_side_network
from .network import SideConfig

DELTA_FILE = "delta.json"
TENSORS_FILE = "delta.safetensors"
_FORMAT = 1


def save_delta(model: nn.Module, folder: str | Path, *, names: Collection[str] | None = None) -> Path:
    """Save what was trained, without the base model.

    The folder gets the trained parameters and all buffers (`delta.safetensors`), and the shape of the side network, if
    there is one, with a fingerprint of all other parameters (`delta.json`).

    Args:
        model: The model.
        folder: The folder. It is created if it does not exist.
        names: Names of the trained parameters. By default, those that require a gradient.

    Returns:
        The folder.

    Raises:
        RequestError: If `names` is empty, or names a parameter that the model does not have.

    Example:
        ```python
        trainer.train()
        save_delta(model, "delta")
        model = load_delta(AutoModelForTokenClassification.from_pretrained(base, num_labels=9), "delta")
        ```
    """
    folder = Path(folder)
    parameters = dict(model.named_parameters())
    trained = {n for n, p in parameters.items() if p.requires_grad} if names is None else set(names)
    unknown = sorted(trained - set(parameters))
    if unknown:
        raise RequestError(f"the model has no parameter {unknown[0]}.")
    if not trained:
        raise RequestError("no parameter of the model is trained, so a delta checkpoint would be empty.")
    network = find_side_network(model)
    buffers = {name for name, _ in model.named_buffers()}
    state = model.state_dict()
    held = {name: state[name].detach().contiguous() for name in sorted(state) if name in trained | buffers}
    described = {
        "format": _FORMAT,
        "base": model_fingerprint(model, without=trained),
        "trained": sorted(trained),
        "side_network": None if network is None else network.config.to_json(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DELTA_FILE).unlink(missing_ok=True)  # written last: it exists only if both files are complete
    part = folder / f"{TENSORS_FILE}.part"
    save_file(held, part)
    os.replace(part, folder / TENSORS_FILE)
    part = folder / f"{DELTA_FILE}.part"
    part.write_text(json.dumps(described, indent=1) + "\n")
    os.replace(part, folder / DELTA_FILE)
    return folder


def load_delta(model: nn.Module, folder: str | Path, *, tower: str | None = None) -> nn.Module:
    """Load a delta checkpoint into its base model, in place. A side network is added if the checkpoint has one.

    Args:
        model: The base model, with a head of the same shape.
        folder: The folder that `save_delta` wrote.
        tower: The tower of the side network in a model with several, as in `find_blocks`.

    Returns:
        The model.

    Raises:
        RequestError: If the folder holds no complete delta checkpoint, or the model is not its base. The model is then
            unchanged.
    """
    folder = Path(folder)
    described, tensors = _read(folder)
    trained, side = described["trained"], described["side_network"]
    if model_fingerprint(model, without=trained) != described["base"]:
        raise RequestError(f"{folder} belongs to another base model: load the weights that it was trained on.")
    state = model.state_dict()
    for name, value in tensors.items():
        shape = tuple(state[name].shape) if name in state else None
        if shape is None and not (side is not None and f"{NAME}." in name):
            raise RequestError(f"{folder} has {name}, which the model does not have.")
        if shape is not None and shape != tuple(value.shape):
            raise RequestError(f"{folder} has {name} of shape {tuple(value.shape)}, and the model has {shape}.")
    if side is not None:
        options = {name: side[name] for name in ("width", "layers", "taps", "dropout")}
        add_side_network(model, **options, tower=tower)
    model.load_state_dict(tensors, strict=False)
    return model


def is_delta(folder: str | Path) -> bool:
    """Return whether a folder holds a complete delta checkpoint."""
    return (Path(folder) / DELTA_FILE).is_file()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not is_delta(folder):
        raise RequestError(f"{folder} holds no delta checkpoint ({DELTA_FILE} is missing).")
    try:
        described = json.loads((folder / DELTA_FILE).read_text())
        tensors = load_file(folder / TENSORS_FILE)
        side = described["side_network"]
        complete = described["format"] == _FORMAT and set(described["trained"]) <= set(tensors)
        if not complete or not isinstance(described["base"], str):
            raise ValueError("incomplete")
        if side is not None:
            SideConfig.from_json(side)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{folder} holds a damaged delta checkpoint, or one of another version.") from error
    return described, tensors
