"""Thins out long sequences before they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return at most `count` of the items, evenly spaced, with the first and the last.

    Example:
        >>> evenly([0, 1, 2, 3, 4], 3)
        [0, 2, 4]
    """
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
