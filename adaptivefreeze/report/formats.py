"""The tables of a report as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from .classes import class_table
from .published import Beside, Published, beside
from .row import Row, Spread
from .summary import Summary
from .table import MISSING, caption, columns

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


def markdown(summaries: Sequence[Summary], published: Mapping[str, Published] | None = None) -> str:
    """Return the answer, the table, its caption and the scores per class of each study as GitHub Markdown."""
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
            parts.append("| " + " | ".join([f"`{_name(first)}`", *cells]) + " |")
        parts += ["", caption(summary), "", *_beside(summary, published or {}), *_classes(summary)]
    return "\n".join(parts)


def _beside(summary: Summary, published: Mapping[str, Published]) -> list[str]:
    """Lines of the table of published figures beside those of the runs, without any if they share no scenario."""
    pairs = beside(summary, published)
    if not pairs:
        return []

    def cells(pair: Beside) -> list[str]:
        row, other = pair.row, pair.published
        gain = row.speedup.mean if row.speedup else None
        scores = []
        for name in ("accuracy", "macro_f1", "weighted_f1"):
            own: Spread | None = getattr(row, name)
            scores += [own and own.mean, getattr(other, name)]
        return [
            *(MISSING if ratio is None else f"{ratio:.2f}" for ratio in (gain, pair.speedup)),
            *(MISSING if score is None else f"{100 * score:.1f}" for score in scores),
        ]

    heads = [f"{name}{kind}" for name in ("×", "accuracy", "macro F1", "weighted F1") for kind in ("", ", published")]
    lines = ["| scenario | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    lines += [f"| `{_name(pair.scenario)}` | {' | '.join(cells(pair))} |" for pair in pairs]
    note = "Published figures beside those of these runs. ×: speedup over full fine-tuning. Scores in points."
    return [*lines, "", note, ""]


def _classes(summary: Summary) -> list[str]:
    """Lines of the table of classes, without any if no run was scored on the test split."""
    table = class_table(summary)
    if not table.rows:
        return []
    lines = [
        "| class | test examples | " + " | ".join(f"`{_name(scenario)}`" for scenario in table.scenarios) + " |",
        "| --- | ---: |" + " ---: |" * len(table.scenarios),
    ]
    for row in table.rows:
        scores = ("–" if score is None else f"{100 * score:.1f}" for score in row.scores)
        lines.append(f"| {_name(row.label)} | {row.support:,.0f} | " + " | ".join(scores) + " |")
    finding = f" {table.finding}" if table.finding else ""
    return [*lines, "", f"F1 per class on the test split in points, mean over seeds; rare classes first.{finding}", ""]


def _name(text: str) -> str:
    """A name as the cell of a Markdown table; a pattern may contain a pipe."""
    return " ".join(text.split()).replace("|", "\\|")


def classes_csv(summaries: Sequence[Summary]) -> str:
    """Return F1 per class as CSV: a line for each class and scenario, rare classes first.

    With several studies, the first column names the study.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    several = len(summaries) > 1
    writer.writerow([*(("study",) if several else ()), "class", "support", "scenario", "f1"])
    for summary in summaries:
        table = class_table(summary)
        for row in table.rows:
            for scenario, score in zip(table.scenarios, row.scores, strict=True):
                cells = [row.label, f"{row.support:g}", scenario, score]
                writer.writerow([*((summary.name,) if several else ()), *cells])
    return text.getvalue()


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
