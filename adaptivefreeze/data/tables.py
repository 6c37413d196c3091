"""Reads tables of texts and their classes: csv, jsonl and parquet files."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import RequestError
from .corpus import LabelledTexts
from .location import read_text

TABLES = (".csv", ".jsonl", ".parquet")


def read_table(path: Path, text_column: str, label_column: str) -> LabelledTexts:
    """The texts and classes of one file; classes may be strings or whole numbers.

    Raises RequestError, with the file and the line (of a parquet file: the row, counted from 1), for a column
    that is not there and for a line that cannot be read.
    """
    rows = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}[path.suffix]
    texts, classes = [], []
    for where, row in rows(path):
        for column in (text_column, label_column):
            if column not in row:
                raise RequestError(
                    f"{where}: there is no column {column!r}, only {', '.join(map(repr, row))}; "
                    "rename it, or name the columns to read."
                )
        text = row[text_column]
        if not isinstance(text, str):
            raise RequestError(f"{where}: the {text_column} is {text!r}; it should be a string.")
        texts.append(text)
        classes.append(class_name(row[label_column], f"{where}: the {label_column}"))
    return LabelledTexts(texts, classes)


def class_name(value: object, where: str) -> str:
    """A class as text; RequestError, beginning with ``where``, unless it is a string or a whole number."""
    if isinstance(value, bool | int) or (isinstance(value, str) and value.strip()):
        return str(value)
    raise RequestError(f"{where} is {value!r}; a class should be a string or a whole number.")


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for fields in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = fields
                continue
            if len(fields) != len(header):
                raise RequestError(
                    f"{where}: {len(fields)} fields where the header names {len(header)}; "
                    "put double quotes round a text that holds a comma."
                )
            yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise RequestError(f"{path}, line {line}: not csv as it should be: {error}.") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise RequestError(f"{where}: not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {line.strip()[:60]!r} is not a JSON object with named fields.")
        yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path}: not a parquet file that can be read: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row
