"""Fingerprints of a model's prefix: a stored row is valid as long as they are the same."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import torch
import transformers
from torch import nn

from ..model.blocks import BlockStack
from ..model.fingerprint import update_digest

# Settings that the embeddings and blocks do not read, or that their tensors show.
_NOT_IN_PREFIX = (
    *("_name_or_path", "name_or_path", "architectures", "transformers_version", "dtype"),
    *("id2label", "label2id", "problem_type", "classifier_dropout"),
)


class PrefixFingerprints:
    """Digests of a model's code and of the values of its leading units.

    A unit is read again only if one of its tensors was written to, or on request.

    Args:
        model: The model.
        stack: Its units.
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
        """Return the first of the leading `units` units whose values differ from those read last, or None.

        Args:
            units: Number of leading units to compare.
            refresh: Whether to read all values. Otherwise only tensors whose version counter or memory has changed are
                read, which misses writes through `tensor.data`.
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

    def forget(self, first: int) -> None:
        """Read the units from number `first` on again when they are next compared.

        Fused optimizers change no version counter.
        """
        self._versions = {unit: versions for unit, versions in self._versions.items() if unit < first}

    def chain(self, units: int) -> str:
        """Return a hexadecimal digest of all that the output of the leading `units` units depends on.

        It covers the code and configuration of the model, the library versions, and the units' parameters and buffers.
        """
        self.changed(units)
        digest = hashlib.blake2b(self._code, digest_size=16)
        for unit in range(units):
            digest.update(self._digests[unit])
        return digest.hexdigest()

    def same(self, later: PrefixFingerprints, units: int) -> bool:
        """Return whether the leading `units` units, as read here, are the same as in the model of `later`."""
        if self._code != later._code or any(unit not in self._digests for unit in range(units)):
            return False
        later.changed(units)
        return all(self._digests[unit] == later._digests[unit] for unit in range(units))

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(t.device for tensors in self._tensors for t in tensors)

    def _read(self, unit: int) -> bytes:
        digest = hashlib.sha256()  # twice as fast as blake2b where the processor has instructions for it
        for tensor in self._tensors[unit]:
            update_digest(digest, f"{tensor.dtype}{tuple(tensor.shape)}", tensor)
        return digest.digest()


def _code_digest(tower: nn.Module) -> bytes:
    config = getattr(tower, "config", None)
    settings = config.to_dict() if config is not None else {}
    for unused in _NOT_IN_PREFIX:
        settings.pop(unused, None)
    settings["attention"] = getattr(config, "_attn_implementation", None)
    source = inspect.getsourcefile(type(tower))
    code = Path(source).read_bytes() if source else type(tower).__qualname__.encode()
    text = json.dumps([settings, torch.__version__, transformers.__version__], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode() + code, digest_size=16).digest()
