"""A run folder on the disk, and what can go wrong with it: its errors, its lock, its manifest, its bytes."""

from __future__ import annotations

import errno
import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ._journal_lines import PART, replace_file
from .manifest import SCHEMA_VERSION, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JournalError(Exception):
    """Something about a run folder is not as it must be; the message is one sentence for the user."""

    exit_code = 2


class RunFolderError(JournalError):
    """The folder cannot be used for this: it holds something else, or nothing, or is in use."""


class CorruptRunError(JournalError):
    """The manifest, or a record in the middle of the journal, is damaged."""


class MismatchError(JournalError):
    """The run was begun with other kernels, cases or settings, or on another machine."""

    exit_code = 3


class DiskFullError(JournalError):
    """There is no room for a record; everything recorded before is intact."""


class UnstorableError(JournalError):
    """A record holds a number that is not finite, or a text that is none; nothing was written."""


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Inside, no other process writes the folder; the lock dies with the process, so that none is ever left behind."""
    import fcntl  # not on Windows, where runs can be read but not written

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"{option} {folder} is being written by another kerneldyno: wait for it, or give another folder") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says which folder, why and what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in DISK_FULL:
            raise DiskFullError(f"{what}: {reason}: make room and resume the run; nothing recorded before is lost") from error
        raise RunFolderError(f"{what}: {reason}: give a folder that can be read and written") from error


@contextmanager
def no_cycles() -> Iterator[None]:
    """Inside, Python looks for no garbage in cycles; also a decorator, of what makes none.

    Each look walks over every sample of a run that is in memory, and finds nothing: of 100 000 cases in more than a second.
    What was made inside counts as old afterwards, so that it is looked at seldom.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what somebody froze stays so
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def require_empty(folder: Path) -> None:
    """Raise RunFolderError when anything lies in the folder in which a run shall begin."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST + PART)  # left by a killed run
    if MANIFEST in names or JOURNAL in names:
        raise RunFolderError(f"--out {folder} holds a run already: give another folder, or --resume {folder}")
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise RunFolderError(f"--out {folder} is not empty (it holds {shown}): give a folder that is new or empty")


def journal_bytes(folder: Path) -> bytes:
    """Empty when the harness was killed between writing the manifest and the first record."""
    try:
        return (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return b""


def raise_schema(folder: Path) -> None:
    """Give the manifest in a folder the schema of this version, and leave everything else in it as it was.

    A journal that is about to hold what older versions do not know says so before: they refuse the run in one sentence,
    instead of taking the new record for damage. Raises CorruptRunError when the manifest is damaged.
    """
    manifest_of(folder)
    told = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=dict[str, msgspec.Raw])
    told["schema"] = msgspec.Raw(msgspec.json.encode(SCHEMA_VERSION))
    replace_file(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")


class _Schema(msgspec.Struct):
    schema: int


def manifest_of(folder: Path, option: str = "") -> Manifest:
    """The plan of the run in a folder; `option` is what stands before the folder in messages."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RunFolderError(f"{option}{folder} holds no run (no {MANIFEST}): give the folder that a run was written to") from None
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema > SCHEMA_VERSION:
            raise RunFolderError(
                f"{option}{folder} was written by a newer kerneldyno (schema {schema}, this one knows {SCHEMA_VERSION}): upgrade kerneldyno"
            )
        return msgspec.json.decode(data, type=Manifest)
    except ValueError as error:
        raise CorruptRunError(
            f"{MANIFEST} in {folder} is damaged ({error}): put back a copy of it, or run again into another folder"
        ) from None
