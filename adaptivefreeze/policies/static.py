"""Static policies: one mask for the whole run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestError
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask
from .arguments import check_depth, depth_of
from .base import Policy, Trial
from .registry import register_policy

if TYPE_CHECKING:
    from ..model.blocks import BlockStack


@register_policy
@dataclass(frozen=True)
class Nothing(Policy):
    """Freezes nothing: full fine-tuning, the reference of every comparison."""

    name: ClassVar[str] = "nothing"

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)


@register_policy
@dataclass(frozen=True)
class BottomUp(Policy):
    """Freezes the embeddings and the first `k` blocks.

    The frozen prefix needs no backward pass, and no forward pass either for examples that the prefix cache holds.
    `BottomUp(0)` freezes nothing: the embeddings freeze only together with a block.

    Reference: Lee et al. 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning"
    (arXiv 1911.03090).

    Args:
        k: Number of blocks (int), or a fraction of the depth (float), rounded half up.
        embeddings: Freeze the embeddings too. When False, nothing can be cached.

    Raises:
        RequestError: When `k` is negative or a fraction above 1.

    Example:
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

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        k = trial.suggest_int("depth", 0, depth)
        embeddings = trial.suggest_categorical("embeddings", (True, False))
        return cls(k, embeddings=embeddings) if k else cls(0)


@register_policy
@dataclass(frozen=True)
class TopDown(Policy):
    """Freezes the last `k` blocks, never the head.

    The gradient still passes through the frozen blocks to the trainable ones below, so only weight gradients and
    optimizer work are saved.

    Args:
        k: Number of blocks (int), or a fraction of the depth (float), rounded half up.
        embeddings: Freeze the embeddings too, unless `k` is 0.

    Raises:
        RequestError: When `k` is negative or a fraction above 1.
    """

    name: ClassVar[str] = "top-down"
    k: float
    embeddings: bool = False

    def __post_init__(self) -> None:
        check_depth(self.name, self.k)

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        k = depth_of(self.name, self.k, stack.depth)
        return FreezeMask(stack.depth, embeddings=self.embeddings and k > 0, blocks=range(stack.depth - k, stack.depth))

    @classmethod
    def suggest(cls, trial: Trial, depth: int) -> Policy:
        k = trial.suggest_int("depth", 0, depth)
        embeddings = trial.suggest_categorical("embeddings", (True, False))
        # Depth 0 is full fine-tuning from either side: one spelling, so that it is trained once.
        return cls(k, embeddings=embeddings) if k else BottomUp(0)


@register_policy
@dataclass(frozen=True)
class Interleaved(Policy):
    """Freezes every `every`-th block: `Interleaved(2)` freezes blocks 0, 2, 4, …

    Args:
        every: Distance between frozen blocks, 1 or more.
        first: Index of the first frozen block.
        embeddings: Freeze the embeddings too.

    Raises:
        RequestError: When `every` or `first` is out of range, or the model has no block `first`.
    """

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


@register_policy
@dataclass(frozen=True)
class HeadOnly(Policy):
    """Freezes the embeddings and all blocks, so that only the head trains."""

    name: ClassVar[str] = "head-only"

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask.first(stack.depth, stack.depth)


@register_policy
@dataclass(frozen=True)
class Modules(Policy):
    r"""Freezes the parameters whose name matches a regular expression.

    `Modules("attention")` freezes the attention of every block, `Modules(r"layer\.[0-3]\.")` the first four blocks. A
    unit all of whose parameters match is frozen as a whole.

    Args:
        pattern: Regular expression, searched in the parameter's name in the model.

    Raises:
        RequestError: When `pattern` is no regular expression, or matches no parameter of the model.
    """

    name: ClassVar[str] = "modules"
    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise RequestError(f"modules: {self.pattern!r} is not a regular expression ({error}).") from error

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        search = re.compile(self.pattern).search
        matched = {u.name: [p for p in u.parameters if search(p.name)] for u in stack.units}
        if not any(matched.values()):
            example = next((p.name for u in stack.blocks for p in u.parameters), "")
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
            parts=((name, self.pattern) for name, found in matched.items() if found and name not in whole),
        )
