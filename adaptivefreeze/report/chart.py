"""A figure with two numeric axes, as data that the page and Matplotlib draw."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """One point of a chart.

    Args:
        x: Horizontal position.
        y: Vertical position.
        text: What hovering shows; name and values if empty.
        x_error: Ends of the horizontal error bar.
        y_error: Ends of the vertical error bar.
        label: Text beside the point.
    """

    x: float
    y: float
    text: str = ""
    x_error: Range | None = None
    y_error: Range | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Marks of one name. Series of the same name share colour, marker and legend entry.

    Args:
        name: Legend entry.
        marks: The points.
        style: `points`, `line`, or `both`.
        control: Whether the series is for orientation: drawn in grey, with open markers and dashed lines.
    """

    name: str
    marks: tuple[Mark, ...]
    style: str = "points"
    control: bool = False


@dataclass(frozen=True)
class Chart:
    """One figure with two numeric axes.

    Args:
        key: File name of the figure.
        title: Heading.
        caption: How to read it.
        x_label: Quantity and unit of the horizontal axis.
        y_label: The same of the vertical axis.
        series: What is drawn.
        whole: Whether the horizontal ticks are whole numbers.
        from_zero: Whether the horizontal axis begins at 0.
        diagonal: Whether the line y = x is drawn.
        level: A horizontal line: its height and name.
        band: A shaded range of heights and its name.
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    whole: bool = False
    from_zero: bool = True
    diagonal: bool = False
    level: tuple[float, str] | None = None
    band: tuple[float, float, str] | None = None
