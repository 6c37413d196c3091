"""Read tables of texts and their classes: csv, jsonl and parquet files.

The values are read as they are written. The readers of `datasets` are not used, because they guess types (the class
`01` becomes `1`, a date becomes a timestamp), can read a csv row with an extra field as shifted columns without an
error, and do not name the line of an error.
"""

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
    """Read the texts and classes of one file.

    Args:
        path: A `.csv`, `.jsonl` or `.parquet` file; csv files begin with a header.
        text_column: The column of the texts, which are strings.
        label_column: The column of the classes, which are strings or integers.

    Raises:
        RequestError: A column is missing or a line cannot be read. The message names the file and the line, or the
            row of a parquet file, counted from 1.
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
    """Return a class as text.

    Raises:
        RequestError: `value` is neither a string nor an integer. The message begins with `where`.
    """
    if isinstance(value, bool | int) or (isinstance(value, str) and value.strip()):
        return str(value)
    raise RequestError(f"{where} is {value!r}; a class should be a string or an integer.")


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
                    "put double quotes around a text that holds a comma."
                )
            yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise RequestError(f"{path}, line {line}: invalid csv: {error}.") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also an integer with too many digits, and too deep nesting
            raise RequestError(f"{where}: not JSON that can be read: {error}.") from None
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {line.strip()[:60]!r} is not a JSON object with named fields.")
        yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row
