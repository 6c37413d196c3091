"""The tables of a report as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from .row import Row
from .summary import Summary
from .table import caption, columns

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def markdown(summaries: Sequence[Summary]) -> str:
    """Return the answer, the table and its caption of each study as GitHub Markdown."""
    parts = []
    for summary in summaries:
        shown = columns(summary)
        if len(summaries) > 1:
            parts += [f"## {summary.name}", ""]
        parts += [summary.answer, ""]
        parts += [*(f"- {sentence}" for sentence in (*summary.findings, *summary.warnings)), ""]
        parts.append("| " + " | ".join(column.title for column in shown) + " |")
        parts.append("| " + " | ".join(["---", *("---:" for _ in shown[1:])]) + " |")
        for row in summary.rows:
            first, *cells = (column.cell(row) for column in shown)
            name = " ".join(first.split()).replace("|", "\\|")  # a pattern may hold a pipe
            parts.append("| " + " | ".join([f"`{name}`", *cells]) + " |")
        parts += ["", caption(summary), ""]
    return "\n".join(parts)


def as_csv(summaries: Sequence[Summary]) -> str:
    """Return the tables as CSV: plain numbers, a `_sd` column after each mean, empty cells for missing values.

    With several studies, the first column names the study.
    """
    values: dict[str, Callable[[Row], object]] = {}
    for summary in summaries:
        for column in columns(summary):
            values.update(column.values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    several = len(summaries) > 1
    writer.writerow([*(("study",) if several else ()), *values])
    for summary in summaries:
        known = {name for column in columns(summary) for name in column.values}
        for row in summary.rows:
            cells = [value(row) if name in known else None for name, value in values.items()]
            writer.writerow([*((summary.name,) if several else ()), *cells])  # None is written as empty
    return text.getvalue()


def latex(summaries: Sequence[Summary]) -> str:
    """Return the tables as LaTeX, for the package booktabs."""
    parts = ["% \\usepackage{booktabs}"]
    for summary in summaries:
        shown = columns(summary)
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(shown) - 1)}}}",
            r"\toprule",
            " & ".join(_escaped(column.title) for column in shown) + r" \\",
            r"\midrule",
            *(" & ".join(_escaped(column.cell(row)) for column in shown) + r" \\" for row in summary.rows),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_escaped(summary.subject)}. {_escaped(caption(summary))}}}",
            r"\end{table}",
            "",
        ]
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^–−±×&%$#_{}]", lambda match: _LATEX[match.group()], " ".join(text.split()))
