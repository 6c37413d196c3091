"""Scenarios: what a person types after --scenarios, as the policies to compare."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import RequestError
from ..policies import POLICIES, AdaptivePolicy, BottomUp, HeadOnly, Interleaved, Nothing, Policy, TopDown, parse_policy

UNFROZEN = frozenset({"nothing", "bottom-up:0", "top-down:0"})
"""The scenarios that are full fine-tuning: what the others are measured against."""

_NAME_AHEAD = re.compile(r",(?=\s*[A-Za-z][A-Za-z-]*\s*(?::|,|$))")


def expand(specs: Sequence[str], depth: int) -> tuple[Policy, ...]:
    """The policies that `specs` name for a model of `depth` blocks, in order, each once.

    A spec is a policy (`bottom-up:6`), a set (`paper`, `depths`, `static`, `adaptive`, `all`) or several of them
    with commas between.

    >>> [str(policy) for policy in expand(["depths"], 3)]
    ['bottom-up:0', 'bottom-up:1', 'bottom-up:2', 'bottom-up:3']

    Raises `RequestError` for an unknown name and for an empty list.
    """
    policies: dict[str, Policy] = {}
    for spec in split_specs(specs):
        for policy in _SETS[spec](depth) if spec in _SETS else (_parse(spec),):
            policies.setdefault(str(policy), policy)
    if not policies:
        raise RequestError("no scenario was given: name policies such as bottom-up:3, or a set such as paper.")
    return tuple(policies.values())


def check_specs(specs: Sequence[str]) -> None:
    """Raises `RequestError` for a spec that no model could make sense of."""
    for spec in split_specs(specs):
        if spec not in _SETS:
            _parse(spec)


def split_specs(texts: Iterable[str]) -> list[str]:
    """Specs, one each, from texts that may hold several with commas between.

    A comma separates only where a name follows: those inside a policy's own arguments belong to it.

    >>> split_specs(["paper, top-down:3,embeddings=true,head-only"])
    ['paper', 'top-down:3,embeddings=true', 'head-only']
    """
    return [spec.strip(" ,") for text in texts for spec in _NAME_AHEAD.split(text) if spec.strip(" ,")]


def _parse(spec: str) -> Policy:
    try:
        return parse_policy(spec)
    except RequestError as error:
        if ":" in spec or spec in {policy.name for policy in POLICIES}:
            raise
        sentence = str(error).rstrip(".")
        raise RequestError(f"{sentence}. Sets of scenarios are {', '.join(_SETS)}.") from error


def _paper(depth: int) -> list[Policy]:
    """The ten of the static-freezing study, which keeps the embeddings fixed wherever it freezes blocks."""
    ks = [math.floor(depth * quarter / 4 + 0.5) for quarter in range(5)]
    return [BottomUp(k) for k in ks] + [TopDown(k, embeddings=k > 0) for k in ks]


def _depths(depth: int) -> list[Policy]:
    return [BottomUp(k) for k in range(depth + 1)]


def _static(depth: int) -> list[Policy]:
    """Every static policy that needs no pattern from the user."""
    return [Nothing(), *(p for p in _paper(depth) if str(p) not in UNFROZEN), Interleaved(2), HeadOnly()]


def _adaptive(depth: int) -> list[Policy]:
    """Every policy that decides while it trains, with its own defaults; one without defaults must be named."""
    return [policy() for policy in POLICIES if issubclass(policy, AdaptivePolicy) and not _required(policy)]


def _all(depth: int) -> list[Policy]:
    return [*_static(depth), *_depths(depth)[1:], *_adaptive(depth)]


def _required(policy: type[Policy]) -> bool:
    """Whether there is an argument that must be given."""
    missing = dataclasses.MISSING
    described: Any = policy
    return any(f.init and f.default is missing and f.default_factory is missing for f in dataclasses.fields(described))


_SETS: dict[str, Callable[[int], list[Policy]]] = {
    "paper": _paper,
    "depths": _depths,
    "static": _static,
    "adaptive": _adaptive,
    "all": _all,
}
