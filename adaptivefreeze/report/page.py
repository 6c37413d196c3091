"""The page of a report: one HTML file without external resources."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from .classes import class_table
from .figures import charts
from .freeze_map import MAX_REASONS, freeze_maps
from .published import Published
from .side_by_side import comparable, traits
from .summary import Summary
from .table import caption, columns, format_bytes


def render(summaries: Sequence[Summary], published: Mapping[str, Published] | None = None) -> str:
    """Return the page as HTML.

    Args:
        summaries: The studies, one section each. All their text is escaped.
        published: Figures of a publication by scenario, to show beside those of the runs.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("adaptivefreeze.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    specs: list[Any] = []

    def numbered(found: Sequence[Any]) -> list[tuple[int, Any]]:
        specs.extend(asdict(spec) for spec in found)
        return list(enumerate(found, len(specs) - len(found)))

    sections = [
        {
            "summary": summary,
            "traits": traits(summary),
            "caption": caption(summary),
            "columns": columns(summary),
            "charts": numbered(charts(summary, published)),
            "classes": class_table(summary),
            "maps": numbered(freeze_maps(summary)),
            "cached": [run for run in summary.results if run.cache_stats is not None],
            "environments": _distinct([run.environment for run in summary.results or summary.runs]),
        }
        for summary in summaries
    ]
    here = files("adaptivefreeze.report")
    return environment.get_template("page.html.jinja").render(
        sections=sections,
        comparable=comparable(summaries),
        figures=Markup(_script_json(specs)),
        css=Markup(here.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(here.joinpath("page.js").read_text(encoding="utf-8")),
        format_bytes=format_bytes,
        max_reasons=MAX_REASONS,
    )


def _script_json(value: Any) -> str:
    """`value` as JSON that cannot end a script element, with numbers rounded to what a figure can show."""
    text = json.dumps(_rounded(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items() if item not in (None, "")}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _distinct(values: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
