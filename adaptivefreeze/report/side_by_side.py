"""Several studies on one page: what each is of, and what of them compares."""

from __future__ import annotations

from collections.abc import Sequence

from ..comparison.result import RunResult
from .checks import ENVIRONMENT
from .summary import Summary


def traits(summary: Summary) -> tuple[str, str, str, str]:
    """Return model, data set, device and version of a study."""
    if not summary.runs:
        return summary.subject, "", "", ""
    first = summary.runs[0]
    devices = dict.fromkeys(_device(run) for run in summary.results)
    versions = dict.fromkeys(str(run.environment.get("adaptivefreeze", "unknown")) for run in summary.results)
    return first.model.name, first.task.dataset, "; ".join(devices), ", ".join(versions)


def comparable(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """Return what of several studies compares, one sentence for each pair of studies that differ."""
    found = []
    for place, one in enumerate(summaries):
        for other in summaries[place + 1 :]:
            different = _differences(one, other)
            names = f"{one.name} and {other.name}"
            if {"data set", "metric"} & different.keys():
                found.append(f"{names}: neither scores nor times compare, only ratios such as ×; {_listed(different)}.")
            elif "model" in different:
                found.append(f"{names}: scores compare, times do not; {_listed(different)}.")
            elif different:
                found.append(f"{names}: {_listed(different)}. Keep that in mind when comparing scores and times.")
            else:
                found.append(f"{names}: the same task, model, settings and environment; everything compares.")
    return tuple(found)


def _differences(one: Summary, other: Summary) -> dict[str, tuple[str, str]]:
    mine, theirs = _properties(one), _properties(other)
    return {
        key: (mine.get(key, "–"), theirs.get(key, "–"))
        for key in dict.fromkeys((*mine, *theirs))
        if mine.get(key) != theirs.get(key)
    }


def _properties(summary: Summary) -> dict[str, str]:
    """What must be equal for two studies to compare."""
    if summary.search is not None:
        return {"data set": summary.subject, "metric": summary.search.metric}
    first = summary.runs[0]
    run = next((run for run in summary.runs if isinstance(run, RunResult)), first)
    return {
        "data set": f"{first.task.dataset} ({first.task.fingerprint[:8]})",
        "model": f"{first.model.name} ({(first.model.fingerprint or 'unknown')[:8]})",
        **{key.replace("_", " "): str(run.environment.get(key)) for key in ENVIRONMENT},
        "version": str(run.environment.get("adaptivefreeze", "unknown")),
        **{key.replace("_", " "): str(value) for key, value in run.settings.items()},
    }


def _listed(different: dict[str, tuple[str, str]]) -> str:
    return ", ".join(f"{key} {mine} / {theirs}" for key, (mine, theirs) in different.items())


def _device(run: RunResult) -> str:
    place = run.environment
    return f"{place.get('device_name') or place.get('device')}, {place.get('threads')} threads"
