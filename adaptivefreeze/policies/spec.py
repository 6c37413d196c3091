"""Specs: a policy as the text that a person types, `bottom-up:6` or `autofreeze:percentile=50`."""

from __future__ import annotations

import dataclasses
import difflib
import re

from ..errors import RequestError
from .base import Policy
from .registry import POLICIES
from .wrappers import WRAPPERS

_WRAPPED = re.compile(rf"\+\s*({'|'.join(w.name for w in WRAPPERS)}):([^+:]*)$")


def parse_policy(spec: str | Policy) -> Policy:
    """The policy that `spec` names; a policy is given back as it is.

    >>> parse_policy("bottom-up:6")
    BottomUp(k=6, embeddings=True)

    A wrapper follows with a plus sign: `autofreeze+ceiling:6`. Raises `RequestError` for an unknown name (the known
    ones are listed), an unknown or a missing argument, and whatever the policy itself refuses.
    """
    if isinstance(spec, Policy):
        return spec
    if wrapped := _WRAPPED.search(spec.strip()):
        wrapper = next(w for w in WRAPPERS if w.name == wrapped[1])
        return wrapper(parse_policy(spec.strip()[: wrapped.start()]), _value(spec, wrapped[2]))
    name, _, rest = spec.strip().partition(":")
    known = {policy.name: policy for policy in POLICIES}
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        wrappers = ", ".join(f"+{w.name}:" for w in WRAPPERS)
        also = f" Wrappers follow a policy: {wrappers}." if "+" in spec else ""
        raise RequestError(f"unknown policy {name!r}; the known ones are {', '.join(known)}.{hint}{also}")
    cls = known[name]
    fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    arguments: dict[str, object] = {}
    # A pattern may hold commas and equal signs of its own.
    words = [rest] if len(fields) == 1 and fields[0].type == "str" else rest.split(",")
    for position, word in enumerate(words if rest else []):
        key, equals, value = word.partition("=")
        if len(fields) == 1 and fields[0].type == "str":
            key, equals, value = fields[0].name, "=", word
        elif not equals:
            if position or not fields:
                raise RequestError(f"{spec!r}: {word!r} is no argument of {name}; write name:key=value,key=value.")
            key, value = fields[0].name, word
        if key not in {f.name for f in fields}:
            raise RequestError(
                f"{spec!r}: {name} has no argument {key!r}; it takes {', '.join(f.name for f in fields) or 'none'}."
            )
        arguments[key] = value if _is_text(fields, key) else _value(spec, value)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in arguments]
    if missing:
        raise RequestError(f"{spec!r}: {name} needs {missing[0]}, as in {name}:{_example(cls)}.")
    return cls(**arguments)


def _is_text(fields: list[dataclasses.Field[object]], key: str) -> bool:
    return any(f.name == key and f.type == "str" for f in fields)


def _value(spec: str, word: str) -> object:
    lowered = word.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            return kind(lowered)
        except ValueError:
            continue
    if lowered == "none":
        return None
    raise RequestError(f"{spec!r}: {word!r} is neither a number nor true or false.")


def _example(cls: type[Policy]) -> str:
    first = dataclasses.fields(cls)[0]  # type: ignore[arg-type]
    return "attention" if first.type == "str" else "3"
