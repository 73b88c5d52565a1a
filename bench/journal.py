"""The store of a run: a folder with a manifest and an append-only journal, which loses nothing that it took.

`manifest.json` is the plan, written first; of it nothing is ever changed but the number of its schema, before the first
record that older versions do not know. `journal.jsonl` holds one record per line, each written and synced at once.
Bytes after the last line end are a write that never finished: they are cut before anything is appended.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from ._journal_lines import Scan, encoded, json_of, replace_file, scan, sync_folder
from ._run_folder import (
    JOURNAL,
    MANIFEST,
    CorruptRunError,
    DiskFullError,
    JournalError,
    MismatchError,
    RunFolderError,
    UnstorableError,
    journal_bytes,
    locked,
    manifest_of,
    no_cycles,
    one_sentence,
    raise_schema,
    require_empty,
)
from .entries import Attempt, CeilingsFound, Extended, FirstLook, GroupDone, Measured, Record, Session, SessionEnd
from .manifest import SCHEMA_VERSION, Manifest
from .matching import differences
from .records import Case, Ceilings, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "JOURNAL",
    "MANIFEST",
    "CorruptRunError",
    "DiskFullError",
    "Journal",
    "JournalError",
    "MismatchError",
    "Run",
    "RunFolderError",
    "UnstorableError",
    "encoded",
    "no_cycles",
    "read",
    "salvage",
]

DIFFERENCES_TOLD = 4

T = TypeVar("T", bound=msgspec.Struct)


@dataclass
class Run:
    """What a run folder holds so far."""

    folder: str
    """Its name, never its path."""
    manifest: Manifest
    measurements: dict[str, Measurement] = field(default_factory=dict)
    """By case id; of several for one case, the last."""
    ceilings: Ceilings | None = None
    groups: list[GroupDone] = field(default_factory=list)
    first_looks: dict[str, int] = field(default_factory=dict)
    """Cell of a comparison -> processes that its first look had; empty before the second look."""
    sessions: int = 0
    """How often the harness began to work on it."""
    ended: SessionEnd | None = None
    """How the last session ended; None when it was killed, or still goes on."""
    suspects: dict[str, int] = field(default_factory=dict)
    """Case id -> in how many earlier sessions, ended by no orderly stop, it was the last one tried and not measured."""
    unfinished: list[str] = field(default_factory=list)
    """Ids of the cases tried and not yet measured in the last session, the latest last."""
    added: list[Case] = field(default_factory=list)
    """The cases that the plan got while the run went on."""

    @property
    def cases(self) -> list[Case]:
        """All that belong to the run: those of the manifest, then those that were added."""
        return [*self.manifest.cases, *self.added]

    def note(self, record: Record) -> None:
        """Take in the next record of the journal."""
        match record:
            case Attempt(case=case):
                if not self.unfinished or self.unfinished[-1] != case:
                    self.unfinished = [*(other for other in self.unfinished if other != case), case]
            case Measured(measurement=measurement):
                self.measurements[measurement.case] = measurement
                self.unfinished = [other for other in self.unfinished if other != measurement.case]
            case Session():  # that another begins is how one knows that the last did not end in an orderly way
                self._begin_session()
            case CeilingsFound(ceilings=ceilings):
                self.ceilings = ceilings
            case FirstLook(processes=processes):
                self.first_looks = processes
            case Extended(cases=cases):
                self.added += cases
            case GroupDone():
                self.groups.append(record)
            case SessionEnd():
                self.ended = record

    def _begin_session(self) -> None:
        if self.ended is None and self.unfinished:
            self.suspects[self.unfinished[-1]] = self.suspects.get(self.unfinished[-1], 0) + 1
        self.sessions += 1
        self.ended, self.unfinished = None, []


class Journal:
    """A run folder opened for writing, by this process alone; to be closed, or used in a `with` statement."""

    def __init__(self, folder: Path, run: Run, size: int, held: ExitStack) -> None:
        """For `create` and `resume`: `size` is the bytes of whole lines, `held` the lock, given up on closing."""
        self.folder = folder
        self.run = run
        """The state so far."""
        self._size = size
        self._held = held
        try:
            self._file = held.enter_context((folder / JOURNAL).open("ab", buffering=0))
            sync_folder(folder)
            self._cut()
        except BaseException:
            held.close()
            raise

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> Self:
        """Begin a run in a folder that is new or empty.

        Raises RunFolderError when the folder holds anything or cannot be written, and DiskFullError.
        """
        with one_sentence(f"--out {folder}"), ExitStack() as held:
            if folder.exists() and not folder.is_dir():
                raise RunFolderError(f"--out {folder} is a file: give a folder that is new or empty")
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder, "--out"))
            require_empty(folder)
            content = _storable(json_of, manifest)
            replace_file(folder / MANIFEST, msgspec.json.format(content, indent=1) + b"\n")
            return cls(folder, Run(folder.resolve().name, manifest_of(folder)), 0, held.pop_all())

    @classmethod
    def resume(cls, folder: Path, manifest: Manifest) -> Self:
        """Open a run to go on with it; `manifest` is what the same command would plan now. Cuts a torn tail.

        Raises RunFolderError when there is no run or another process writes it, CorruptRunError when a record in the
        middle is damaged, and MismatchError, naming what differs, when its measurements would not fit those it holds.
        """
        with one_sentence(f"--resume {folder}"), ExitStack() as held:
            stored = manifest_of(folder, "--resume ")
            if found := differences(stored, manifest):
                more = f"; and {len(found) - DIFFERENCES_TOLD} more" if len(found) > DIFFERENCES_TOLD else ""
                raise MismatchError(
                    f"--resume {folder} was begun differently ({'; '.join(found[:DIFFERENCES_TOLD])}{more}): "
                    "resume it as it was begun, or begin anew with --out and another folder"
                )
            held.enter_context(locked(folder, "--resume"))
            run, whole = _replayed(folder, stored)
            return cls(folder, run, whole.stretches[-1].stop if whole.stretches else 0, held.pop_all())

    def append(self, record: Record) -> None:
        """Write one record; when this returns, it is on the disk.

        Before cases are added to a run of an older schema its manifest gets the schema of this version, and nothing else.
        Raises UnstorableError, DiskFullError or another JournalError; then the journal is as it was before.
        """
        line, before = _storable(encoded, record), self._size
        with one_sentence(f"the run folder {self.folder}"):
            if isinstance(record, Extended) and self.run.manifest.schema < SCHEMA_VERSION:
                raise_schema(self.folder)
                self.run.manifest = msgspec.structs.replace(self.run.manifest, schema=SCHEMA_VERSION)
            self._cut()
            try:
                rest = memoryview(line)
                while rest:  # once, unless the disk fills up
                    rest = rest[os.write(self._file.fileno(), rest) :]
                self._size += len(line)
                os.fsync(self._file.fileno())
            except OSError:
                self._size = before
                self._cut()
                raise
            finally:
                if self._size > before:  # also when Ctrl-C came during the sync
                    self.run.note(record)

    def close(self) -> None:
        """Let others write the folder; a second call does nothing."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self) -> None:
        """Remove what follows the last whole record: a torn tail found on opening, or a write that failed or was interrupted."""
        size = os.fstat(self._file.fileno()).st_size
        if size < self._size:
            raise CorruptRunError(f"{JOURNAL} in {self.folder} became shorter while it was written: keep other programs away from it")
        if size > self._size:
            os.ftruncate(self._file.fileno(), self._size)


def read(folder: Path) -> Run:
    """What a run folder holds, also while another process writes it; changes nothing and leaves out a torn tail.

    Raises RunFolderError when there is no run, and CorruptRunError when it is damaged.
    """
    with one_sentence(f"the run folder {folder}"), no_cycles():
        return _replayed(folder, manifest_of(folder))[0]


def salvage(folder: Path) -> int:
    """Keep every good record of a damaged journal, put the damaged file aside, and return how many records were kept.

    An undamaged journal is left as it is. Raises RunFolderError when there is no run or another process writes it.
    """
    with one_sentence(f"the run folder {folder}"):
        manifest_of(folder)
        with locked(folder, "the run folder"):
            data = journal_bytes(folder)
            found = scan(data)
            if found.faults:
                number = 1 + len(list(folder.glob("damaged-*.jsonl")))
                replace_file(folder / f"damaged-{number}.jsonl", data)
                replace_file(folder / JOURNAL, b"".join(data[stretch] for stretch in found.stretches))
            return len(found.records)


def _replayed(folder: Path, manifest: Manifest) -> tuple[Run, Scan]:
    """The state that the records lead to, and what was read."""
    found = scan(journal_bytes(folder))
    if found.faults:
        fault = found.faults[0]
        more = f", and so are {len(found.faults) - 1} more" if len(found.faults) > 1 else ""
        raise CorruptRunError(
            f"line {fault.line} of {JOURNAL} in {folder} is damaged ({fault.reason}){more}: "
            f"`kerneldyno salvage {folder}` keeps the {len(found.records)} good ones"
        )
    run = Run(folder.resolve().name, manifest)
    for record in found.records:
        run.note(record)
    return run, found


def _storable(write: Callable[[T], bytes], value: T) -> bytes:
    try:
        return write(value)
    except ValueError as error:
        raise UnstorableError(str(error)) from None
