"""The page of a report: one HTML file without external resources."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import Summary
from .table import caption, columns, format_bytes


def render(summary: Summary, drawings: Sequence[str] = ()) -> str:
    """Return the page as HTML.

    Args:
        summary: Content of the report; all its text is escaped.
        drawings: Figures as SVG elements. They are not escaped: pass only what `drawing.svg` returned.
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
    environments = []
    for run in summary.results or summary.runs:
        if run.environment not in environments:
            environments.append(run.environment)
    return environment.get_template("page.html.jinja").render(
        summary=summary,
        caption=caption(summary),
        columns=columns(summary),
        drawings=[Markup(drawing) for drawing in drawings],
        cached=[run for run in summary.results if run.cache_stats is not None],
        study=summary.runs[0] if summary.runs else None,
        environments=environments,
        format_bytes=format_bytes,
    )
