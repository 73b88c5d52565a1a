"""How records lie in a journal: one JSON object with a checksum per line; and how a file is replaced in one step.

What a damaged line means for a run is decided in journal.py.
"""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from .entries import Record

if TYPE_CHECKING:
    from pathlib import Path

PART = ".part"
"""The ending of a file that is being written and takes its name when it is whole."""

HEAD = b'{"crc":"%08x","record":'
"""What stands before the record in a line."""
RECORD = len(HEAD % 0)
"""Where in a line the record begins."""


class _Line(msgspec.Struct, frozen=True):
    crc: str
    record: msgspec.Raw
    """Undecoded, so that the checksum is of the very bytes that were written."""


@dataclass(frozen=True)
class Fault:
    """A line that cannot be used."""

    line: int
    """Counted from 1."""
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a journal's bytes hold."""

    records: list[Record]
    stretches: list[slice]
    """Where in the bytes the good lines lie, line ends included; lines that follow one another are one stretch."""
    faults: list[Fault]
    torn_bytes: int
    """After the last line end: a write that never finished."""


def encoded(record: Record) -> bytes:
    """The line of a record. Raises ValueError, naming the field, when it cannot be written and read back alike."""
    content = json_of(record)
    return _framed(content) + b"\n"


def json_of(value: msgspec.Struct) -> bytes:
    """The JSON of a struct. Raises ValueError for a number that is not finite: JSON has none, and msgspec would write null."""
    if field := _not_finite(msgspec.to_builtins(value)):
        raise ValueError(f"{field[0]} is {field[1]}, which cannot be stored: leave it None and give the reason")
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a text holds {error.object[error.start : error.end]!r}, which is no character: decode with errors='replace'"
        ) from None


def scan(data: bytes) -> Scan:
    """Read the bytes of a journal; never raises."""
    records: list[Record] = []
    stretches: list[slice] = []
    faults: list[Fault] = []
    start = good = 0
    while end := data.find(b"\n", start) + 1:
        try:
            records.append(_decoded(data[start : end - 1]))
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            faults.append(Fault(len(records) + len(faults) + 1, str(error)))
            stretches += [slice(good, start)] if good < start else []
            good = end
        start = end
    stretches += [slice(good, start)] if good < start else []
    return Scan(records, stretches, faults, len(data) - start)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens meanwhile, its name holds either the old content or all of the new."""
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _framed(content: bytes) -> bytes:
    return HEAD % zlib.crc32(content) + content + b"}"


def _decoded(line: bytes) -> Record:
    content = line[RECORD:-1]
    if line == _framed(content):  # as it was written: it need not be taken apart first
        return _RECORD.decode(content)
    found = _LINE.decode(line)
    if found.crc != f"{zlib.crc32(found.record):08x}":
        raise ValueError("the checksum does not match")
    return _RECORD.decode(found.record)


def _not_finite(value: Any, path: str = "") -> tuple[str, float] | None:
    """Path and value of the first number that is not finite; None when all are."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        if found := _not_finite(item, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")):
            return found
    return None


_LINE = msgspec.json.Decoder(_Line)
_RECORD: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
