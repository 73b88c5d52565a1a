"""Whether a model's files are still those that a run was planned with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ._given_config import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from ._given_files import Source


def _read_files(source: Source) -> list[Path]:
    """Everything that numbers come from, in one order."""
    extra = [source.inputs] if source.inputs is not None else []
    return [source.folder / "config.json", *sorted(set(source.files.values())), *extra]


def digest_of(source: Source) -> str:
    """Hexadecimal SHA-256 over every byte that numbers come from. Raises ModelError for a file that cannot be read."""
    found = hashlib.sha256()
    for path in _read_files(source):
        try:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelError(f"{path.name} cannot be read ({error.strerror})") from None
    return found.hexdigest()


def stamps_of(source: Source) -> list[list[int]]:
    """Size and time of change of every file: they tell cheaply that none was replaced since the digest was taken."""
    return [[stat.st_size, stat.st_mtime_ns] for stat in (path.stat() for path in _read_files(source))]
