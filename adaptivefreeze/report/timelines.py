"""The third plot of a study: what was frozen when, a strip a run, for the runs whose mask changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model.mask import EMBEDDINGS, HEAD
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16
"""How many strips are drawn; the table of what was frozen when has all runs."""


@dataclass(frozen=True)
class Strip:
    """One run of `steps` steps. `spans` are (unit, first step, step after the last) in which a unit was wholly frozen;
    units are counted from 0, the embeddings, to `depth` + 1, the head."""

    scenario: str
    seed: int
    steps: int
    depth: int
    spans: tuple[tuple[int, int, int], ...]


def strips(summary: Summary) -> tuple[Strip, ...]:
    """What the plot shows: the first seed of each scenario in which something was frozen or thawed on the way."""
    found: dict[str, Strip] = {}
    for run in summary.results:
        if len({change["mask"] for change in run.timeline}) > 1 and run.scenario not in found:
            depth = run.model.blocks
            changes = [(change["step"], frozen_units(change["mask"], depth)) for change in run.timeline]
            found[run.scenario] = Strip(run.scenario, run.seed, run.steps, depth, _spans(changes, run.steps, depth))
    return tuple(found.values())[:MOST]


def frozen_units(mask: str, depth: int) -> frozenset[int]:
    """Numbers of the wholly frozen units of a mask in the form of the timeline: `embeddings+0-1 | 2-3 head`.

    >>> sorted(frozen_units("embeddings+0-1 | 2-3 head", 4))
    [0, 1, 2]
    """
    # Units are listed on the right as long as a part of them trains.
    trained: set[int] = set()
    for word in mask.rpartition(" | ")[2].split():
        if word == EMBEDDINGS:
            trained.add(0)
        elif word == HEAD:
            trained.add(depth + 1)
        elif word != "-":
            first, _, last = word.partition("-")
            trained |= set(range(int(first) + 1, int(last or first) + 2))
    return frozenset(range(depth + 2)) - trained


def draw(info: Sequence[Strip]) -> Figure:
    """`info` as a figure that belongs to no window: units upwards, steps to the right, frozen ones filled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 1.4 * len(info)), layout="constrained")
    for place, strip in enumerate(info, 1):
        axes = figure.add_subplot(len(info), 1, place)
        for unit, begin, end in strip.spans:
            axes.broken_barh([(begin, end - begin)], (unit - 0.45, 0.9), color="C0")
        axes.set(xlim=(0, strip.steps), ylim=(-0.6, strip.depth + 1.6))
        axes.set_yticks([0, (strip.depth + 1) / 2, strip.depth + 1], [EMBEDDINGS, "blocks", HEAD], fontsize="small")
        axes.set_title(f"{strip.scenario}, seed {strip.seed}", fontsize="small", loc="left")
    if info:
        axes.set_xlabel("step (filled: frozen)")
    return figure


def _spans(changes: Sequence[tuple[int, frozenset[int]]], steps: int, depth: int) -> tuple[tuple[int, int, int], ...]:
    spans = []
    for unit in range(depth + 2):
        begun: int | None = None
        for step, frozen in changes:
            if unit in frozen and begun is None:
                begun = step
            elif unit not in frozen and begun is not None:
                spans.append((unit, begun, step))
                begun = None
        if begun is not None and begun < steps:
            spans.append((unit, begun, steps))
    return tuple(spans)
