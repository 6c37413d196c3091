"""Griffe extension: doctest examples in docstrings are shown as code blocks, wherever they stand."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*|\n(?P=indent) +\S.*)*", re.MULTILINE)


def _fence(match: re.Match[str]) -> str:
    code = re.sub(r" *# doctest: .*$", "", match[0], flags=re.MULTILINE)
    return f"{match['indent']}```pycon\n{code}\n{match['indent']}```"


class Doctests(griffe.Extension):
    """Puts fences around the lines from `>>>` to the next blank line."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object before it is parsed."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = _EXAMPLE.sub(_fence, obj.docstring.value)
