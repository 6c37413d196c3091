"""Local folders, as distinct from hub names, and UTF-8 text files."""

import os
from pathlib import Path

from ..errors import RequestError


def local_folder(name: str, what: str) -> Path | None:
    """Return the folder called `name`, or None if `name` is a hub name.

    Args:
        name: A path, `name` or `owner/name`.
        what: What the folder should contain, for the message of an error.

    Raises:
        RequestError: `name` is a file, or can only be a path but does not exist.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise RequestError(f"{name} is a file; pass the folder that contains {what}.")
    # A hub name is "name" or "owner/name"; anything else is a path.
    if not name or name.startswith((".", "~", os.sep)) or "\\" in name or name.count("/") > 1 or name.endswith("/"):
        raise RequestError(f"There is no folder {name!r}; pass an existing folder with {what}, or a hub name.")
    return None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without its byte order mark.

    Raises:
        RequestError: The file is not UTF-8. The message names the line.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(f"{path}, line {line}: not UTF-8 text; convert the file to UTF-8.") from None
