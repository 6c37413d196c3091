"""Fingerprints: what has to be the same for a stored row to be right, as a chain over the units of the prefix."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import torch
import transformers
from torch import nn

from ..model.blocks import BlockStack


class Fingerprints:
    """Digests of a model's code and of its leading units.

    `chain(b)` stands for everything that a row with `b` units behind it depends on: model code, config, library
    versions, and the values of the parameters and buffers of these units. A unit is read again only when one of its
    tensors was written to (`changed`), or on `refresh`.
    """

    def __init__(self, model: nn.Module, stack: BlockStack) -> None:
        parameters = dict(model.named_parameters())
        buffers = dict(model.named_buffers())
        self._tensors: list[list[torch.Tensor]] = []
        for unit in stack.units:
            inside = tuple(f"{path}." for path in unit.modules)
            held = [buffer for name, buffer in sorted(buffers.items()) if inside and name.startswith(inside)]
            self._tensors.append([parameters[p.name] for p in unit.parameters] + held)
        self._code = _code_digest(model.get_submodule(stack.tower))
        self._versions: dict[int, tuple[tuple[int, int], ...]] = {}
        self._digests: dict[int, bytes] = {}

    def changed(self, units: int, *, refresh: bool = False) -> int | None:
        """The first of the leading `units` units whose values are no longer what they were, or None.

        With `refresh` all values are read, else those that were written to since.
        """
        first: int | None = None
        for unit in range(units):
            versions = tuple((t._version, t.data_ptr()) for t in self._tensors[unit])
            if not refresh and self._versions.get(unit) == versions:
                continue
            digest = self._read(unit)
            if self._digests.get(unit, digest) != digest and first is None:
                first = unit
            self._versions[unit], self._digests[unit] = versions, digest
        return first

    def chain(self, units: int) -> str:
        """Hexadecimal digest of code and the leading `units` units."""
        self.changed(units)
        digest = hashlib.blake2b(self._code, digest_size=16)
        for unit in range(units):
            digest.update(self._digests[unit])
        return digest.hexdigest()

    def same(self, later: Fingerprints, units: int) -> bool:
        """Whether `later`, of a model at a later time, agrees with what was read here on the leading `units` units."""
        if self._code != later._code or any(unit not in self._digests for unit in range(units)):
            return False
        later.changed(units)
        return all(self._digests[unit] == later._digests[unit] for unit in range(units))

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(t.device for tensors in self._tensors for t in tensors)

    def _read(self, unit: int) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for tensor in self._tensors[unit]:
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
        return digest.digest()


def _code_digest(tower: nn.Module) -> bytes:
    config = getattr(tower, "config", None)
    settings = config.to_dict() if config is not None else {}
    for changing in ("_name_or_path", "name_or_path", "architectures", "id2label", "label2id", "transformers_version"):
        settings.pop(changing, None)
    settings["attention"] = getattr(config, "_attn_implementation", None)
    source = inspect.getsourcefile(type(tower))
    code = Path(source).read_bytes() if source else type(tower).__qualname__.encode()
    text = json.dumps([settings, torch.__version__, transformers.__version__], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode() + code, digest_size=16).digest()
