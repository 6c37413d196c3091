"""What a run froze, when and why, with the validation score and the policy's signal on the same axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..comparison.result import RunResult
from ..model.mask import EMBEDDINGS, HEAD, FreezeMask, block_name
from ..model.timeline import Change, Timeline
from .sampling import evenly
from .summary import Summary

MAX_MAPS = 24
"""Runs with a map; the others are in the result files."""

COLUMNS = 300
"""Masks and signal values drawn per run; more are sampled at even distances."""

MAX_REASONS = 60
"""Decisions listed per run."""


@dataclass(frozen=True)
class FreezeMap:
    """One run.

    Args:
        title: Scenario and seed.
        steps: Steps of the run.
        units: Names of the units: the embeddings, each block, and the head.
        spans: (unit, first step, step after the last) during which a whole unit was frozen.
        changes: (step, mask, reason) of each decision.
        validation: (step, macro F1 in points).
        signal: Name of the policy's signal; empty if none was recorded.
        heat: (step, values from 0 to 1, one per unit, None where not measured) of the signal.
        range: Smallest and largest value of the signal.
    """

    title: str
    steps: int
    units: tuple[str, ...]
    spans: tuple[tuple[int, int, int], ...]
    changes: tuple[tuple[int, str, str], ...]
    validation: tuple[tuple[int, float], ...]
    signal: str = ""
    heat: tuple[tuple[int, tuple[float | None, ...]], ...] = ()
    range: tuple[float, float] = (0.0, 0.0)


def freeze_maps(summary: Summary) -> tuple[FreezeMap, ...]:
    """Return the maps of the runs whose mask changed, those of the first seed first, at most `MAX_MAPS`."""
    seen: dict[str, int] = {}
    moving: list[tuple[int, RunResult, Timeline]] = []
    for run in summary.results:
        # Results of earlier versions hold the masks as text only.
        if not all(change.get("frozen") is not None for change in run.timeline):
            continue
        timeline = Timeline.from_json(run.timeline)
        if len({change.mask for change in timeline}) > 1:
            place = seen[run.scenario] = seen.get(run.scenario, -1) + 1
            moving.append((place, run, timeline))
    moving.sort(key=lambda item: item[0])
    return tuple(_map(run, timeline) for _, run, timeline in moving[:MAX_MAPS])


def frozen_units(mask: FreezeMask) -> frozenset[int]:
    """Return the numbers of the units that are frozen as a whole: embeddings 0, block i i + 1, head depth + 1.

    Example:
        >>> sorted(frozen_units(FreezeMask.first(4, 2)))
        [0, 1, 2]
    """
    units = (mask.embeddings, *(i in mask.blocks for i in range(mask.depth)), mask.head)
    return frozenset(number for number, frozen in enumerate(units) if frozen)


def _map(run: RunResult, timeline: Timeline) -> FreezeMap:
    units = (EMBEDDINGS, *(block_name(i) for i in range(run.model.blocks)), HEAD)
    changes = evenly(list(timeline), COLUMNS)
    name, heat, span = _heat(run, units)
    return FreezeMap(
        title=f"{run.scenario}, seed {run.seed}",
        steps=run.steps,
        units=units,
        spans=_spans(changes, run.steps, len(units)),
        changes=tuple((change.step, str(change.mask), change.reason) for change in changes),
        validation=tuple((p.step, 100 * p.macro_f1) for p in evenly(run.validation, COLUMNS)),
        signal=name,
        heat=heat,
        range=span,
    )


def _heat(
    run: RunResult, units: Sequence[str]
) -> tuple[str, tuple[tuple[int, tuple[float | None, ...]], ...], tuple[float, float]]:
    """The first signal of the run, scaled to 0 to 1."""
    if not run.signals:
        return "", (), (0.0, 0.0)
    name = run.signals[0].name
    records = evenly([record for record in run.signals if record.name == name], COLUMNS)
    values = [value for record in records for value in record.values.values()]
    low, high = min(values, default=0.0), max(values, default=0.0)

    def scaled(found: Mapping[str, float]) -> tuple[float | None, ...]:
        return tuple(((found[unit] - low) / (high - low or 1.0)) if unit in found else None for unit in units)

    return name, tuple((record.step, scaled(record.values)) for record in records), (low, high)


def _spans(changes: Sequence[Change], steps: int, units: int) -> tuple[tuple[int, int, int], ...]:
    """The (unit, first step, step after the last) spans of a sequence of masks."""
    masks = [(change.step, frozen_units(change.mask)) for change in changes]
    spans = []
    for unit in range(units):
        begun: int | None = None
        for step, frozen in (*masks, (steps, frozenset[int]())):
            if unit in frozen and begun is None:
                begun = step
            elif unit not in frozen and begun is not None:
                spans.append((unit, begun, step))
                begun = None
    return tuple(span for span in spans if span[1] < span[2])
