"""Policy: what decides which units are frozen. Pure: a stack and signals in, a mask out."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError
from ..mask import FreezeMask

if TYPE_CHECKING:
    from ..blocks import BlockStack


class Policy(ABC):
    """Decides what is frozen.

    A policy is a dataclass: its fields are its arguments, checked in `__post_init__` with a `RequestError`, and
    `str(policy)` is the spec that `parse_policy` reads back. `name` is its name in specs.
    """

    name: ClassVar[str]

    @abstractmethod
    def start(self, stack: BlockStack) -> FreezeMask:
        """The mask from the first step on. Raises `RequestError` when the arguments do not fit the model."""

    @property
    def reason(self) -> str:
        """Why the mask is what it is, for the timeline."""
        return "static"

    def state_dict(self) -> dict[str, Any]:
        """What has to outlive a checkpoint, as plain JSON. Nothing, for a mask that never changes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises `ValueError` for a state that is not this policy's."""
        if state:
            raise ValueError(f"{self} keeps no state, but {sorted(state)} was given")

    def __str__(self) -> str:
        """The spec in full: the first argument by position, the others by name where they differ from the default."""
        words = []
        for index, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if index == 0 and field.default is dataclasses.MISSING:
                words.append(_word(value))
            elif value != field.default:
                words.append(f"{field.name}={_word(value)}")
        return f"{self.name}:{','.join(words)}" if words else self.name


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def depth_of(policy: str, k: float, blocks: int) -> int:
    """`k` blocks, or the fraction `k` of `blocks`, rounded half up. Raises `RequestError` outside 0 … `blocks`."""
    if isinstance(k, float):
        return math.floor(k * blocks + 0.5)
    if k > blocks:
        raise RequestError(f"{policy}: depth {k} is out of range, this model has {blocks} blocks; give 0 to {blocks}.")
    return k


def check_depth(policy: str, k: object) -> None:
    """Raises `RequestError` unless `k` is a number of blocks or a fraction from 0.0 to 1.0."""
    if isinstance(k, bool) or not isinstance(k, (int, float)) or k < 0 or (isinstance(k, float) and k > 1):
        raise RequestError(
            f"{policy}: depth must be a whole number of blocks (0 or more) or a fraction from 0.0 to 1.0, not {k!r}."
        )
