"""Scenarios: the policies of a comparison, from specs, names of sets and Policy objects."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable

from ..errors import RequestError
from ..policies import (
    AdaptivePolicy,
    BottomUp,
    HeadOnly,
    Interleaved,
    Nothing,
    Policy,
    TopDown,
    parse_policy,
    registered_policies,
)
from ..policies.base import arguments_of

_BEFORE_NAME = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9-]*\s*(?::|,|$))")


def expand(scenarios: Iterable[str | Policy], depth: int) -> tuple[Policy, ...]:
    """Return the policies that `scenarios` stand for, in order, without duplicates.

    Args:
        scenarios: Policies, specs (`bottom-up:6`) and names of sets (`paper`, `depths`, `static`, `adaptive`, `all`).
            A text may hold several, separated by commas.
        depth: Number of blocks of the model.

    Raises:
        RequestError: When a name is unknown, when `scenarios` is empty, or when two different policies have the same
            string form, which is the name of the scenario.

    Example:
        >>> [str(policy) for policy in expand(["depths"], 3)]
        ['bottom-up:0', 'bottom-up:1', 'bottom-up:2', 'bottom-up:3']
    """
    policies: dict[str, Policy] = {}
    for scenario in parse_scenarios(scenarios):
        for policy in (scenario,) if isinstance(scenario, Policy) else _SETS[scenario](depth):
            known = policies.setdefault(str(policy), policy)
            if known != policy:
                raise RequestError(
                    f"two different scenarios are called {str(policy)!r}: make {type(policy).__name__} a dataclass, or "
                    "give it a __str__ that distinguishes them."
                )
    if not policies:
        raise RequestError("no scenario was given: name policies such as bottom-up:3, or a set such as paper.")
    return tuple(policies.values())


def parse_scenarios(scenarios: Iterable[str | Policy]) -> tuple[str | Policy, ...]:
    """Parse specs into policies. Names of sets stay as they are, since the policies of a set depend on the model.

    Raises:
        RequestError: When a name is unknown or a policy rejects an argument.

    Example:
        >>> parse_scenarios(["paper", "bottom-up:6"])
        ('paper', BottomUp(k=6, embeddings=True))
    """
    parsed: list[str | Policy] = []
    for scenario in scenarios:
        specs = [scenario] if isinstance(scenario, Policy) else split_specs([scenario])
        parsed += [spec if isinstance(spec, Policy) or spec in _SETS else _parse(spec) for spec in specs]
    return tuple(parsed)


def split_specs(texts: Iterable[str]) -> list[str]:
    """Split texts that hold several specs, separated by commas.

    A comma separates specs only when a name follows; other commas belong to the arguments of a policy.

    >>> split_specs(["paper, top-down:3,embeddings=true,head-only"])
    ['paper', 'top-down:3,embeddings=true', 'head-only']
    """
    return [spec.strip(" ,") for text in texts for spec in _BEFORE_NAME.split(text) if spec.strip(" ,")]


def _parse(spec: str) -> Policy:
    try:
        return parse_policy(spec)
    except RequestError as error:
        if ":" in spec or spec in {policy.name for policy in registered_policies()}:
            raise
        sentence = str(error).rstrip(".")
        raise RequestError(f"{sentence}. Sets of scenarios are {', '.join(_SETS)}.") from error


def _paper(depth: int) -> list[Policy]:
    """The ten scenarios of the static-freezing study, which freezes the embeddings wherever it freezes blocks."""
    ks = [math.floor(depth * quarter / 4 + 0.5) for quarter in range(5)]
    return [BottomUp(k) for k in ks] + [TopDown(k, embeddings=k > 0) for k in ks]


def _depths(depth: int) -> list[Policy]:
    return [BottomUp(k) for k in range(depth + 1)]


def _static(depth: int) -> list[Policy]:
    """The static policies that need no pattern."""
    frozen = [policy for policy in _paper(depth) if policy not in (BottomUp(0), TopDown(0))]
    return [Nothing(), *frozen, Interleaved(2), HeadOnly()]


def _adaptive(depth: int) -> list[Policy]:
    """The adaptive policies without required arguments, with default arguments."""
    return [cls() for cls in registered_policies() if issubclass(cls, AdaptivePolicy) and not _has_required(cls)]


def _all(depth: int) -> list[Policy]:
    return [*_static(depth), *_depths(depth)[1:], *_adaptive(depth)]


def _has_required(cls: type[Policy]) -> bool:
    missing = dataclasses.MISSING
    return any(f.default is missing and f.default_factory is missing for f in arguments_of(cls))


_SETS: dict[str, Callable[[int], list[Policy]]] = {
    "paper": _paper,
    "depths": _depths,
    "static": _static,
    "adaptive": _adaptive,
    "all": _all,
}
