"""The registry of policies by name, and specs: `bottom-up:6`, `autofreeze:percentile=50`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from ..errors import RequestError
from .base import Policy, arguments_of
from .wrappers import WRAPPERS, Wrapper

ENTRY_POINTS = "adaptivefreeze.policies"
"""The entry point group whose modules are imported when policies are listed or an unknown name is given."""

RESERVED_NAMES = ("paper", "depths", "static", "adaptive", "all", "none")
"""Names that are no policies where scenarios are given: sets of policies, and the empty set."""

MOST_WRAPPERS = 20
"""How many wrappers a spec may have."""

_ORDER = (
    "nothing", "bottom-up", "top-down", "interleaved", "head-only", "modules", "semifreddo", "dimensions",
    "weight-freezing", "embedding-rows", "rates", "autofreeze", "validation",
    "random-prefix", "linear", "geometric", "gradual-unfreezing", "layerout", "lisa", "freezeout", "grades", "autorgn",
    "egeria", "smartfrz", "runtime-choice", "budget", "short-full", "side",
)  # fmt: skip
"""The order in which policies are listed; policies that are not named here follow in the order of registration."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_WRAPPED = re.compile(rf"\+\s*({'|'.join(w.name for w in WRAPPERS)}):([^+:]*)$")
_registered: dict[str, type[Policy]] = {}
_loaded_entry_points: set[str] = set()

_PolicyClass = TypeVar("_PolicyClass", bound=type[Policy])


def register_policy(cls: _PolicyClass) -> _PolicyClass:
    """Register a policy class under its `name`, so that `parse_policy` and the command line find it.

    A class decorator, to be placed above `@dataclass`. Defining a class again, as a notebook cell does, replaces it.

    Args:
        cls: A subclass of `Policy` that is a dataclass and has a `name`.

    Returns:
        `cls`, unchanged.

    Raises:
        TypeError: When `cls` is not a dataclass derived from `Policy`.
        ValueError: When its name is missing, cannot stand in a spec or belongs to another policy.

    Example:
        >>> @register_policy  # doctest: +SKIP
        ... @dataclass(frozen=True)
        ... class EmbeddingsOnly(Policy):
        ...     name = "embeddings-only"
        ...
        ...     def initial_mask(self, stack):
        ...         return FreezeMask(stack.depth, embeddings=True)
        >>> parse_policy("embeddings-only")  # doctest: +SKIP
        EmbeddingsOnly()
    """
    if not (isinstance(cls, type) and issubclass(cls, Policy)):
        raise TypeError(f"{cls!r} cannot be registered: derive it from Policy or AdaptivePolicy.")
    if "__dataclass_fields__" not in vars(cls):
        raise TypeError(f"{cls.__name__} cannot be registered: it is no dataclass; put @dataclass below the decorator.")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{cls.__name__} cannot be registered as {name!r}: a name starts with a letter and holds letters, digits "
            "and hyphens."
        )
    taken = _registered.get(name)
    if name in RESERVED_NAMES or name in {wrapper.name for wrapper in WRAPPERS}:
        raise ValueError(f"{cls.__name__} cannot be registered as {name!r}: this name has another meaning in specs.")
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"{cls.__name__} cannot be registered as {name!r}: this is the name of {taken.__module__}.{taken.__name__}."
        )
    _registered[name] = cls
    return cls


def registered_policies() -> tuple[type[Policy], ...]:
    """Return all registered policies: the built-in ones, then those of plugins.

    Raises:
        RequestError: When an installed plugin cannot be imported.
    """
    _load_entry_points()
    rank = {name: index for index, name in enumerate(_ORDER)}
    return tuple(sorted(_registered.values(), key=lambda cls: rank.get(cls.name, len(rank))))


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register policies.

    Args:
        modules: Names of importable modules.

    Raises:
        RequestError: When a module cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # a plugin may raise anything while it is imported
            raise RequestError(f"plugin {name!r} cannot be imported ({_describe(error)}).") from error


def discover(package: str, path: Iterable[str]) -> None:
    """Import all modules of a package, which registers the policies in them.

    Args:
        package: Name of the package.
        path: Its folders, as in `package.__path__`.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def parse_policy(spec: str | Policy) -> Policy:
    """Return the policy that a spec describes.

    A spec is a name, then arguments: `name:value` or `name:key=value,key=value`. Wrappers follow with a plus sign:
    `autofreeze+ceiling:6`, `nothing+sieve:0.5,until=1`.

    Args:
        spec: The spec. A policy is returned unchanged.

    Raises:
        RequestError: When the name is unknown, an argument is unknown or missing, or the policy rejects a value.

    Example:
        >>> parse_policy("bottom-up:6")
        BottomUp(k=6, embeddings=True)
    """
    if isinstance(spec, Policy):
        return spec
    if isinstance(spec, type) and issubclass(spec, Policy):
        needed = [field.name for field in arguments_of(spec) if _is_required(field)]
        raise RequestError(
            f"{spec.__name__} is the class of a policy: create one, {spec.__name__}({', '.join(needed)})."
        )
    if isinstance(spec, int) and not isinstance(spec, bool):
        raise RequestError(f"{spec} is no policy: BottomUp({spec}), or 'bottom-up:{spec}', freezes {spec} blocks.")
    if not isinstance(spec, str):
        raise RequestError(f"a policy is given as a Policy object or as a spec such as 'bottom-up:6', not as {spec!r}.")
    text, wrapped = spec.strip(), []
    while found := _WRAPPED.search(text):
        wrapped.append(found)
        if len(wrapped) > MOST_WRAPPERS:
            raise RequestError(f"{spec[:60]!r}… has more than {MOST_WRAPPERS} wrappers: remove some.")
        text = text[: found.start()].strip()
    name, _, rest = text.partition(":")
    cls = _find(name, spec)
    policy = cls(**_arguments(cls, text, rest))
    for found in reversed(wrapped):
        wrapper = next(w for w in WRAPPERS if w.name == found[1])
        policy = wrapper(policy, **_arguments(wrapper, found[0], found[2]))
    return policy


def _find(name: str, spec: str) -> type[Policy]:
    if name not in _registered:
        _load_entry_points()
    if name in _registered:
        return _registered[name]
    known = [policy.name for policy in registered_policies()]
    close = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    also = f" Wrappers follow a policy: {', '.join(f'+{w.name}:' for w in WRAPPERS)}." if "+" in spec else ""
    raise RequestError(f"unknown policy {name!r}; the known ones are {', '.join(known)}.{hint}{also}")


def _arguments(cls: type[Policy], spec: str, text: str) -> dict[str, object]:
    """Parse the part of a spec after the name."""
    fields = {
        field.name: field for field in arguments_of(cls) if not (issubclass(cls, Wrapper) and field.name == "policy")
    }
    first = next(iter(fields), "")
    arguments: dict[str, object] = {}
    # A single required text may hold commas and equal signs of its own, as regular expressions do.
    single_text = len(fields) == 1 and _is_text(fields[first]) and _is_required(fields[first])
    words = ([text] if single_text else text.split(",")) if text else []
    for position, word in enumerate(words):
        key, equals, value = word.partition("=")
        key = key.strip()
        if single_text:
            key, value = first, word
        elif not equals:
            if position or not fields:
                raise RequestError(f"{spec!r}: {word!r} is no argument of {cls.name}; write name:key=value,key=value.")
            key, value = first, word
        if key not in fields:
            raise RequestError(f"{spec!r}: {cls.name} has no argument {key!r}; it takes {', '.join(fields) or 'none'}.")
        arguments[key] = value if _is_text(fields[key]) else _value(spec, value)
    missing = [name for name, field in fields.items() if _is_required(field) and name not in arguments]
    if missing:
        example = "attention" if _is_text(fields[first]) else "3"
        raise RequestError(f"{spec!r}: {cls.name} needs {missing[0]}, as in {cls.name}:{example}.")
    return arguments


def _is_text(field: dataclasses.Field[Any]) -> bool:
    return re.search(r"\bstr\b", str(field.type)) is not None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(spec: str, word: str) -> object:
    """Convert a word to a bool, a number or None."""
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


def _load_entry_points() -> None:
    """Import the policies of installed distributions, each once."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.value in _loaded_entry_points:
            continue
        try:
            entry.load()
        except Exception as error:  # a plugin may raise anything while it is imported
            source = f" of {entry.dist.name}" if entry.dist else ""
            raise RequestError(
                f"plugin {entry.name!r}{source} cannot be imported ({_describe(error)}): repair or uninstall it."
            ) from error
        _loaded_entry_points.add(entry.value)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
