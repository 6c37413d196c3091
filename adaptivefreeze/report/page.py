"""The page of a study: one HTML file that needs nothing beside it."""

from __future__ import annotations

from typing import Any

from .curves import draw as draw_curves
from .curves import validation_curves
from .plot import draw, svg, trade_off
from .summary import Summary
from .table import caption, cell, columns, label, title
from .timelines import draw as draw_timelines
from .timelines import strips


def render(summary: Summary) -> str:
    """The page as text. Raises `IndexError` for a summary without runs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("adaptivefreeze.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = columns(summary)
    # The drawings are our own; every text in them went through matplotlib's own escaping.
    plots = []
    if summary.results:
        points = trade_off(summary)
        if points.points:
            plots.append(Markup(svg(draw(points))))
        curves = validation_curves(summary)
        if curves.lines:
            plots.append(Markup(svg(draw_curves(curves))))
        changing = strips(summary)
        if changing:
            plots.append(Markup(svg(draw_timelines(changing))))
    return environment.get_template("page.html.jinja").render(
        title=title(summary),
        caption=caption(summary),
        warnings=summary.warnings,
        heads=[column.title for column in shown],
        rows=[(label(row), row.unfrozen, [cell(column, row) for column in shown]) for row in summary.rows],
        plots=plots,
        runs=summary.results,
        cached=[run for run in summary.results if run.cache_stats is not None],
        memory=lambda count: f"{count / 2**20:,.0f} MiB",
        failures=summary.failures,
        task=summary.task,
        model=summary.model,
        settings=_settings(summary),
        environments=_environments(summary),
    )


def _settings(summary: Summary) -> dict[str, Any]:
    return dict(summary.runs[0].settings)


def _environments(summary: Summary) -> list[dict[str, Any]]:
    """The different environments, each once."""
    found: list[dict[str, Any]] = []
    for run in summary.results or summary.failures:
        if dict(run.environment) not in found:
            found.append(dict(run.environment))
    return found
