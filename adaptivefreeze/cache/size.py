"""Sizes of memory as people write them: `4GiB`, `500 MB`, a number of bytes."""

from __future__ import annotations

import re

from ..errors import RequestError

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}


def parse_size(size: str | int) -> int:
    """Bytes of `size`.

    >>> parse_size("1.5GiB"), parse_size("2 MB"), parse_size(4096)
    (1610612736, 2000000, 4096)

    Raises `RequestError` for what is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(size))
    if isinstance(size, bool) or match is None or match[2].lower() not in _UNITS:
        raise RequestError(f"{size!r} is no size of memory: give a number of bytes, or one like '4GiB' or '500MB'.")
    return int(float(match[1]) * _UNITS[match[2].lower()])
