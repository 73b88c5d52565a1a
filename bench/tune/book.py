"""Where choices are stored: the files that kernels read when they are built. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kerneldyno.kernels import _tuned
from kerneldyno.kernels._tuned import Entry, Key

from .._journal_lines import replace_file
from ..plan import UsageError

if TYPE_CHECKING:
    from kerneldyno.kernels._cards import Card


def place(given: Path | None, card: Card, *, simulated: bool) -> Path:
    """The folder that is written. Raises UsageError where it cannot be, and TunedError where the file for the card is damaged."""
    if given is None and simulated:
        raise UsageError("--simulated: times of a device that is not there must not be stored with the package: give --out DIR")
    folder = given or _tuned.place()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be made ({error.strerror}): give another folder") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written: give --out DIR, and let {_tuned.PLACE} name it when kernels are built")
    _tuned.read(folder / f"{_tuned.architecture(card.capability)}.json")
    return folder


def holds(folder: Path, key: Key) -> bool:
    """Whether there is a choice for it. Raises TunedError for a damaged file."""
    return key in _tuned.read(folder / f"{key.architecture}.json")


def add(folder: Path, entry: Entry) -> Path:
    """Store a choice, in place of an earlier one with the same key; return the file. Raises TunedError for a damaged file."""
    path = folder / f"{entry.key.architecture}.json"
    entries = {**_tuned.read(path), entry.key: entry}
    try:
        replace_file(path, _tuned.written(entries, entry.key.architecture))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): make room or give permission, then --resume") from None
    return path
