"""Rows of hidden states in a folder: append-only files with checksums, for this run and later ones."""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_MAGIC = b"adaptivefreeze rows 2\n"
_LONGEST_HEADER = 4096
_RECORD = struct.Struct("<16sIII")  # key, tokens, checksum of the row, checksum of the first 24 bytes


@dataclass
class _File:
    """One file of rows. It is mapped into memory for reading."""

    path: Path
    dtype: torch.dtype
    width: tuple[int, ...]
    view: mmap.mmap | None = None
    writer: BufferedWriter | None = None
    end: int = 0

    @property
    def token_bytes(self) -> int:
        return math.prod(self.width) * self.dtype.itemsize


class DiskRows:
    """Maps a fingerprint and a key to a row of shape (tokens, …).

    Each process appends to its own files, so several processes can share a folder without locks. A file is only read
    for the fingerprint that it was written for. A row with a wrong checksum is never returned, and an incomplete file
    is read up to its last whole row. If the folder is not writable, this is logged once, and it is still read.

    Args:
        folder: The folder. It is created if it does not exist.

    Attributes:
        folder: The folder.
        bytes: Number of bytes written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.bytes = 0
        self._writable = True
        self._files: list[_File] = []
        # fingerprint -> key -> (file, offset, tokens, checksum)
        self._index: dict[str, dict[bytes, tuple[int, int, int, int]]] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._stop_writing(error)

    def has(self, fingerprint: str, key: bytes) -> bool:
        """Return whether a row exists. Its checksum is verified when it is read."""
        return key in self._known(fingerprint)

    def get(self, fingerprint: str, key: bytes) -> torch.Tensor | None:
        """Return a copy of the row in host memory, or None if it does not exist or its checksum is wrong."""
        place = self._known(fingerprint).get(key)
        if place is None:
            return None
        number, offset, tokens, checksum = place
        file = self._files[number]
        size = tokens * file.token_bytes
        data = self._read(file, offset, size)
        if len(data) != size or zlib.crc32(data) != checksum:
            logger.warning("A row in %s does not match its checksum and is computed again.", file.path)
            del self._index[fingerprint][key]
            return None
        values = torch.frombuffer(bytearray(data), dtype=file.dtype) if size else torch.empty(0, dtype=file.dtype)
        return values.reshape(tokens, *file.width)

    def put(self, fingerprint: str, key: bytes, row: torch.Tensor) -> bool:
        """Append a row.

        Returns:
            Whether it was written. It is not if it exists or if the folder is not writable.
        """
        if not self._writable or self.has(fingerprint, key):
            return False
        value = row.detach().cpu().contiguous()
        data = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        head = struct.pack("<16sII", key, value.shape[0], zlib.crc32(data))
        try:
            number = self._own_file(fingerprint, value)
            file = self._files[number]
            assert file.writer is not None
            file.writer.write(head + struct.pack("<I", zlib.crc32(head)) + data)
        except OSError as error:
            self._stop_writing(error)
            return False
        place = (number, file.end + _RECORD.size, int(value.shape[0]), zlib.crc32(data))
        file.end += _RECORD.size + len(data)
        self.bytes += _RECORD.size + len(data)
        self._index[fingerprint][key] = place
        return True

    def close(self) -> None:
        """Flush and close all files."""
        for file in self._files:
            if file.writer is not None:
                try:
                    file.writer.close()
                except OSError as error:
                    self._stop_writing(error)
            if file.view is not None:
                file.view.close()
        self._files, self._index = [], {}

    def _known(self, fingerprint: str) -> dict[bytes, tuple[int, int, int, int]]:
        if fingerprint not in self._index:
            self._index[fingerprint] = {}
            for path in sorted(self.folder.glob(f"{fingerprint}-*.rows")):
                try:
                    self._scan(path, fingerprint)
                except OSError as error:
                    logger.warning("%s cannot be read (%s). Its rows are computed again.", path, error)
        return self._index[fingerprint]

    def _scan(self, path: Path, fingerprint: str) -> None:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            header = stream.readline(_LONGEST_HEADER) + stream.readline(_LONGEST_HEADER)
            read = _read_header(header, fingerprint)
            if read is None:
                logger.warning("%s is damaged or was written for another model or version. It is ignored.", path)
                return
            file = _File(path, *read)
            self._files.append(file)
            offset = len(header)
            while offset + _RECORD.size <= size:
                stream.seek(offset)
                record = stream.read(_RECORD.size)
                key, tokens, checksum, record_checksum = _RECORD.unpack(record)
                end = offset + _RECORD.size + tokens * file.token_bytes
                if zlib.crc32(record[:-4]) != record_checksum or end > size:
                    logger.warning("%s is incomplete after %d bytes. The rows before are used.", path, offset)
                    break
                self._index[fingerprint][key] = (len(self._files) - 1, offset + _RECORD.size, tokens, checksum)
                offset = end

    def _own_file(self, fingerprint: str, row: torch.Tensor) -> int:
        name = str(row.dtype).removeprefix("torch.")
        for number, file in enumerate(self._files):
            like = (file.dtype, file.width) == (row.dtype, tuple(row.shape[1:]))
            if file.writer and like and file.path.name.startswith(fingerprint):
                return number
        path = self.folder / f"{fingerprint}-{os.getpid()}-{os.urandom(4).hex()}.rows"
        writer = path.open("xb")
        header = _write_header(fingerprint, name, row.shape[1:])
        writer.write(header)
        self._files.append(_File(path, row.dtype, tuple(row.shape[1:]), None, writer, len(header)))
        return len(self._files) - 1

    def _read(self, file: _File, offset: int, size: int) -> bytes:
        if not size:
            return b""
        if file.view is None or len(file.view) < offset + size:
            try:
                if file.writer is not None:
                    file.writer.flush()
                if file.view is not None:
                    file.view.close()
                with file.path.open("rb") as stream:
                    file.view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                logger.warning("%s cannot be read (%s).", file.path, error)
                file.view = None
                return b""
        return file.view[offset : offset + size]

    def _stop_writing(self, error: OSError) -> None:
        if self._writable:
            logger.warning("Rows are no longer written to %s (%s). Training continues.", self.folder, error)
        self._writable = False


def _write_header(fingerprint: str, dtype: str, width: Sequence[int]) -> bytes:
    """Two lines: the format, and a description in JSON with its checksum."""
    described = json.dumps({"fingerprint": fingerprint, "dtype": dtype, "width": list(width)}).encode()
    return _MAGIC + described + b" %08x\n" % zlib.crc32(described)


def _read_header(header: bytes, fingerprint: str) -> tuple[torch.dtype, tuple[int, ...]] | None:
    """The data type and the width of the rows; None if the header is damaged or of another fingerprint."""
    described, _, checksum = header.removeprefix(_MAGIC).rpartition(b" ")
    if not header.startswith(_MAGIC) or checksum != b"%08x\n" % zlib.crc32(described):
        return None
    try:
        value = json.loads(described)
        dtype, width = getattr(torch, value["dtype"]), tuple(value["width"])
        known = value["fingerprint"] == fingerprint and isinstance(dtype, torch.dtype)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return (dtype, width) if known and all(type(size) is int and size > 0 for size in width) else None
