"""Writes what a search has to show (search.md, .csv, .svg, .png, .html), and reads a stored answer again."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..comparison.result import write_text
from ..errors import RequestError
from .plot import svg
from .search_plot import curve, draw
from .search_table import as_csv, caption, heads, markdown, rows

if TYPE_CHECKING:
    from ..search import DepthSearch


def load_search(folder: str | Path) -> DepthSearch | None:
    """The answer that lies in `folder`, or None. Raises `RequestError` for a file that is none."""
    path = Path(folder) / "search.json"
    if not path.is_file():
        return None
    from ..search import DepthSearch

    try:
        return DepthSearch.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is no answer of a search that this version can read ({error}).") from error


def publish_search(search: DepthSearch, folder: str | Path) -> tuple[Path, ...]:
    """Write all files into `folder` and return their paths."""
    folder = Path(folder)
    figure = draw(curve(search))
    drawing = svg(figure)
    texts = {
        "search.md": markdown(search),
        "search.csv": as_csv(search),
        "search.svg": drawing,
        "search.html": page(search, drawing),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    part = folder / ".search.png.part"
    part.write_bytes(image.getvalue())
    os.replace(part, folder / "search.png")
    return tuple(folder / name for name in (*texts, "search.png"))


def page(search: DepthSearch, drawing: str) -> str:
    """One self-contained page; `drawing` is the plot as SVG."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("adaptivefreeze.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("search.html.jinja").render(
        title=search.title,
        words=search.words,
        failures=search.failures,
        plot=Markup(drawing),  # our own; every text in it went through matplotlib's escaping
        caption=caption(search),
        heads=heads(search),
        rows=rows(search),
        chosen={search.best.name, search.fast.name},
        study=search.study,
        storage=search.storage,
    )
