"""Options from a TOML file, with the names of the command line."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import RequestError


def read_config(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read options from a TOML file.

    A table `set` contains fields of `TrainingArguments`: `[set]` with `weight_decay = 0.01` is
    `--set weight_decay=0.01`.

    Args:
        path: The file.
        known: The names of the options, with underscores.

    Returns:
        Values by the names of the options, with underscores.

    Raises:
        RequestError: The file cannot be read, is not TOML, or contains an unknown option.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"--config {path} cannot be read ({error.strerror}): pass a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"--config {path} is not TOML: {error}.") from error
    options: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0].replace('_', '-')}?" if near else f"the options are {_listed(known)}."
            raise RequestError(f"--config {path} contains the unknown option {key!r}: {hint}")
        if isinstance(value, dict):
            if name != "set":
                raise RequestError(f"--config {path}: {key} is a table, but only set may be one: write {key} = …")
            value = [f"{field}={_text(item)}" for field, item in value.items()]
        options[name] = value
    return options


def _text(item: Any) -> str:
    """A value of a `set` table as `--set` accepts it."""
    return item if isinstance(item, str) else json.dumps(item)


def _listed(known: Collection[str]) -> str:
    """Names of options as on the command line."""
    return ", ".join(sorted(name.replace("_", "-") for name in known))
