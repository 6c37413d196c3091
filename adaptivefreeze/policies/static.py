"""Static policies: one mask, from the first step to the last."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask
from .base import Policy, check_depth, depth_of

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@dataclass(frozen=True)
class Nothing(Policy):
    """Freezes nothing: full fine-tuning, the reference of every comparison."""

    name: ClassVar[str] = "nothing"

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)


@dataclass(frozen=True)
class BottomUp(Policy):
    """Freezes the embeddings and the first `k` blocks; `k` may be a fraction of the depth, rounded half up.

    `BottomUp(0)` freezes nothing: without a frozen block the embeddings stay trainable too. With
    `embeddings=False` they stay trainable in any case, and then nothing can be skipped.

    >>> str(BottomUp(6)), str(BottomUp(0.5, embeddings=False))
    ('bottom-up:6', 'bottom-up:0.5,embeddings=false')
    """

    name: ClassVar[str] = "bottom-up"
    k: float
    embeddings: bool = True

    def __post_init__(self) -> None:
        check_depth(self.name, self.k)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        k = depth_of(self.name, self.k, stack.depth)
        return FreezeMask(stack.depth, embeddings=self.embeddings and k > 0, blocks=range(k))


@dataclass(frozen=True)
class TopDown(Policy):
    """Freezes the last `k` blocks, never the head; with `embeddings=True` and `k` > 0 the embeddings too.

    The gradient still has to pass through frozen blocks to what trains below them, so this saves weight
    gradients and optimizer work alone.
    """

    name: ClassVar[str] = "top-down"
    k: float
    embeddings: bool = False

    def __post_init__(self) -> None:
        check_depth(self.name, self.k)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        k = depth_of(self.name, self.k, stack.depth)
        return FreezeMask(stack.depth, embeddings=self.embeddings and k > 0, blocks=range(stack.depth - k, stack.depth))


@dataclass(frozen=True)
class Interleaved(Policy):
    """Freezes every `every`-th block, from block `first` on: `Interleaved(2)` freezes blocks 0, 2, 4, …"""

    name: ClassVar[str] = "interleaved"
    every: int
    first: int = 0
    embeddings: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise RequestError(f"interleaved: give the distance between frozen blocks, 1 or more, not {self.every!r}.")
        if not isinstance(self.first, int) or self.first < 0:
            raise RequestError(f"interleaved: the first frozen block must be 0 or more, not {self.first!r}.")

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        blocks = range(self.first, stack.depth, self.every)
        if not blocks:
            raise RequestError(
                f"interleaved: block {self.first} is out of range, this model has blocks 0 to {stack.depth - 1}."
            )
        return FreezeMask(stack.depth, embeddings=self.embeddings, blocks=blocks)


@dataclass(frozen=True)
class HeadOnly(Policy):
    """Trains the head alone: embeddings and all blocks are frozen."""

    name: ClassVar[str] = "head-only"

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask.first(stack.depth, stack.depth)


@dataclass(frozen=True)
class Modules(Policy):
    r"""Freezes the parameters in whose name the regular expression `pattern` is found.

    `Modules("attention")` freezes the attention of every block, `Modules(r"layer\.[0-3]\.")` four blocks. A unit all
    of whose parameters match is frozen whole.
    """

    name: ClassVar[str] = "modules"
    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError) as error:
            raise RequestError(f"modules: {self.pattern!r} is not a regular expression ({error}).") from error

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        found = re.compile(self.pattern).search
        matched = {u.name: [p for p in u.parameters if found(p.name)] for u in stack.units}
        if not any(matched.values()):
            example = next(p.name for u in stack.blocks for p in u.parameters)
            raise RequestError(
                f"modules: no parameter's name matches {self.pattern!r}; they look like {example!r} "
                "(`adaptivefreeze inspect` lists the units)."
            )
        whole = {u.name for u in stack.units if matched[u.name] and len(matched[u.name]) == len(u.parameters)}
        return FreezeMask(
            stack.depth,
            embeddings=EMBEDDINGS in whole,
            blocks=(i for i, u in enumerate(stack.blocks) if u.name in whole),
            head=HEAD in whole,
            parts=((name, self.pattern) for name, found_in in matched.items() if found_in and name not in whole),
        )
