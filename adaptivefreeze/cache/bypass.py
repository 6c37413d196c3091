"""Runs part of a tower with its own forward pass: up to a boundary, or from a stored hidden state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..model.blocks import BlockStack
from ..model.eval_mode import eval_mode
from .forms import BlockForm, Layout, Stem, Unsuitable, block_form, first_hidden, layout_of, stem_of
from .keys import Batch


class _Reached(Exception):
    """The boundary was reached, so the rest of the forward pass is not needed."""


@dataclass
class _Run:
    """The current forward pass: start from the states `given` at boundary `start`, end at boundary `stop`."""

    batch: Batch
    start: int = 0
    given: dict[int, torch.Tensor] = field(default_factory=dict)  # hidden states by boundary
    stop: int | None = None
    wanted: tuple[int, ...] = ()  # boundaries
    learning: bool = False
    found: dict[int, torch.Tensor] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs where they are not sequences of tokens. Sequences may have any length."""
        if self.batch.tokens is not None:
            return ()
        return tuple(tuple(t.shape[1:]) for _, t in sorted(self.batch.tensors.items()))


class Bypass:
    """Wraps the forward passes of a tower's embeddings and blocks, until `remove`.

    A boundary is the number of units below it: 1 for the embeddings, 1 + k for the embeddings and the first k blocks.
    Outside of `from_inputs`, `from_boundary` and `learn`, the wrapped modules run as before.

    A skipped module returns placeholders full of NaN. An output of the model that depends on one of them is then NaN,
    so the check before first use cannot miss it.

    The hidden state at a boundary has the shape (batch, tokens, hidden). With taps below the boundary, the states at
    these are stacked in front of it: (batch, tokens, taps + 1, hidden).

    Args:
        model: The model.
        stack: Its units.
        taps: Boundaries at which a module outside of the blocks reads the output of a block in a forward hook. A
            skipped block returns the real hidden state there.

    Attributes:
        runs_embeddings: Whether the embeddings run although they are skipped, for models whose later blocks read them.
        runs_extras: Whether a skipped block runs if it returns more than its hidden state, such as the position bias of
            T5, which later blocks read. Its hidden state is not used.
        dtype: Data type of the hidden state.
    """

    def __init__(self, model: nn.Module, stack: BlockStack, taps: Sequence[int] = ()) -> None:
        self.tower = model.get_submodule(stack.tower)
        self._taps = tuple(sorted(taps))
        self.runs_embeddings = False
        self.runs_extras = False
        self._run: _Run | None = None
        self._stems: dict[tuple[str, Any], Stem | None] = {}
        self._forms: dict[tuple[int, int, Any], BlockForm] = {}  # by block, module of the block, and signature
        self.dtype = torch.float32
        self._layout = Layout()
        self._calls: dict[int, int] = {}
        self._known: set[Any] = set()
        self._wrapped: list[nn.Module] = []
        for path in stack.units[0].modules:
            module = model.get_submodule(path)
            self._wrap(module, functools.partial(self._stem_forward, path, list(module.modules())))
        for index, unit in enumerate(stack.blocks):
            for position, path in enumerate(unit.modules):
                last = position == len(unit.modules) - 1
                module = model.get_submodule(path)
                run = functools.partial(self._block_forward, index, position, last, list(module.modules()))
                self._wrap(module, run)

    def remove(self) -> None:
        """Restore the forward passes of the model."""
        for module in self._wrapped:
            del module.forward
        self._wrapped = []

    @property
    def running(self) -> bool:
        """Whether a pass of this bypass is in progress."""
        return self._run is not None

    @property
    def modes(self) -> list[tuple[bool, bool]]:
        """The values of (`runs_embeddings`, `runs_extras`) that make a difference, the cheapest first."""
        stems = any(stem is not None for stem in self._stems.values())
        extras = any(form.extras for form in self._forms.values())
        return [(s, e) for e in ((False, True) if extras else (False,)) for s in ((False, True) if stems else (False,))]

    def learn(self, forward: Callable[..., Any], batch: Batch, boundary: int) -> tuple[Any, torch.Tensor]:
        """Run the whole forward pass, and record the form of each module's output.

        Returns:
            The output, and the hidden state at `boundary`.

        Raises:
            Unsuitable: If a block returns no hidden state, or one without a vector for each token.
        """
        with self._running(_Run(batch, stop=boundary, wanted=self._levels(boundary), learning=True)) as run:
            self._forms = {key: form for key, form in self._forms.items() if key[2] != run.signature}
            output = forward(**batch.arguments())
        hidden = self._stacked(run)
        self.dtype = hidden.dtype
        self._calls = dict(run.calls)
        self._known.add(run.signature)
        return output, hidden

    def from_inputs(
        self,
        forward: Callable[..., Any],
        batch: Batch,
        stop: int,
        *,
        start: int = 0,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the units below boundary `stop`.

        Args:
            forward: The tower's forward pass.
            batch: The inputs.
            stop: Boundary to stop at.
            start: Boundary to start from; 0 for the inputs.
            hidden: Hidden state at boundary `start`.

        Returns:
            The hidden state at boundary `stop`.

        Raises:
            Unsuitable: If the forward pass does not reach the boundary.
        """
        given = {} if hidden is None else self._unstacked(start, hidden)
        with self._running(_Run(batch, start, given, stop, self._levels(stop))) as run, suppress(_Reached):
            forward(**batch.arguments())
        return self._stacked(run)

    def from_boundary(self, forward: Callable[..., Any], batch: Batch, start: int, hidden: torch.Tensor) -> Any:
        """Run `forward` from `hidden` at boundary `start`, without the units below it, and return its output.

        The arguments of the loss are passed here only: a tower that is the whole model computes it.
        """
        with self._running(_Run(batch, start, self._unstacked(start, hidden))):
            return forward(**batch.arguments(), **batch.loss)

    def knows(self, batch: Batch) -> bool:
        """Whether the forms of the outputs are known for such a batch."""
        return _Run(batch).signature in self._known

    def _levels(self, boundary: int) -> tuple[int, ...]:
        """The boundaries whose states make up the hidden state at `boundary`, which is the last of them."""
        return (*(tap for tap in self._taps if tap < boundary), boundary)

    def _unstacked(self, boundary: int, hidden: torch.Tensor) -> dict[int, torch.Tensor]:
        levels = self._levels(boundary)
        return {boundary: hidden} if len(levels) == 1 else dict(zip(levels, hidden.unbind(-2), strict=True))

    def _stacked(self, run: _Run) -> torch.Tensor:
        states = run.given | run.found
        missing = [level for level in run.wanted if level not in states]
        if missing:
            raise Unsuitable(f"its forward pass does not reach block {missing[-1] - 2}")
        if len(run.wanted) == 1:
            return states[run.wanted[0]]
        if len({states[level].shape for level in run.wanted}) > 1:
            raise Unsuitable("the blocks that are read return hidden states of different shapes")
        return torch.stack([states[level] for level in run.wanted], dim=-2)

    @contextmanager
    def _running(self, run: _Run) -> Iterator[_Run]:
        self._run = run
        try:
            yield run
        finally:
            self._run = None

    def _wrap(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        original = module.forward
        module.forward = functools.update_wrapper(functools.partial(forward, original), original)
        self._wrapped.append(module)

    def _stem_forward(
        self, path: str, modules: list[nn.Module], original: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        run = self._run
        if run is None:
            return original(*args, **kwargs)
        key = (path, run.signature)
        if run.learning:
            output = original(*args, **kwargs)
            self._stems[key] = stem_of(output, args, kwargs, run.batch)
            return output
        if not run.start:
            return original(*args, **kwargs)
        stem = None if self.runs_embeddings else self._stems.get(key)
        return (
            _evaluated(original, modules, args, kwargs) if stem is None else stem.placeholder(args, kwargs, run.batch)
        )

    def _block_forward(
        self,
        index: int,
        position: int,
        last: bool,
        modules: list[nn.Module],
        original: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        run = self._run
        if run is None:
            return original(*args, **kwargs)
        if last:
            run.calls[index] = run.calls.get(index, 0) + 1
        unit = index + 1
        form = self._forms.get((index, position, run.signature))
        if unit < run.start:
            if form is None:
                raise Unsuitable(f"block {index} did not run on the batch that was checked")
            hidden = first_hidden(args, kwargs)
            if last and unit + 1 in run.given:
                hidden = self._layout.to_model(run.given[unit + 1], like=hidden)
            whole = _evaluated(original, modules, args, kwargs) if self.runs_extras and form.extras else None
            return form.output(hidden, args, kwargs, whole)
        output = original(*args, **kwargs)
        if run.learning:
            form = self._forms[index, position, run.signature] = block_form(index, output, args, kwargs)
        if last and unit + 1 in run.wanted and form is not None:
            if run.learning:  # the last call counts, if the block runs several times
                self._layout = layout_of(index, form.hidden(output), run.batch)
            elif run.calls[index] != self._calls.get(index, 1):
                return output
            run.found[unit + 1] = self._layout.to_rows(form.hidden(output), run.batch)
            if run.stop == unit + 1 and not run.learning:
                raise _Reached
        return output


def _evaluated(
    forward: Callable[..., Any], modules: list[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a frozen module in evaluation mode, without gradients."""
    with torch.no_grad(), eval_mode(modules):
        return forward(*args, **kwargs)
