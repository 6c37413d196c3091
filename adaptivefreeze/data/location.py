"""Tells a local folder from a hub name, and reads text files that should be UTF-8."""

import os
from pathlib import Path

from ..errors import RequestError


def local_folder(name: str, what: str) -> Path | None:
    """The folder that ``name`` means, or None where it is a hub name; ``what`` it should hold is for the error.

    Raises RequestError for a file, and for what can only be a path but is not there.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise RequestError(f"{name} is a file; give the folder that holds {what}.")
    # A hub name is "name" or "owner/name"; anything else was meant as a path.
    if not name or name.startswith((".", "~", os.sep)) or "\\" in name or name.count("/") > 1 or name.endswith("/"):
        raise RequestError(f"There is no folder {name!r}; give an existing folder with {what}, or a hub name.")
    return None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; RequestError with the line that is not."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(f"{path}, line {line}: not UTF-8 text; convert the file to UTF-8.") from None
