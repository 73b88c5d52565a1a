"""The folder of a tuning: what was asked, and for each choice what was left to measure, its runs, and what came of it. No torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kerneldyno.kernels._tuned import Entry, Key

from .._journal_lines import replace_file
from .._run_folder import CorruptRunError, MismatchError, RunFolderError, one_sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAN, CANDIDATES, OUTCOME = "tune.json", "candidates.json", "outcome.json"
T = TypeVar("T", bound=msgspec.Struct)


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, and where: a tuning that goes on has to be asked the same."""

    fingerprint: str
    """Of the machine and its software."""
    sources: dict[str, str]
    """Kernel -> hash of its code, choices that were tuned before left out."""
    goals: list[str]
    """Keys and problems, in order."""
    options: dict[str, Any]
    """Of the command line, as plain values."""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What was left to measure of one choice."""

    kept: list[str]
    left_out: dict[str, str]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one choice."""

    key: Key
    kernel: str
    problem: str
    entry: Entry | None
    """What is stored; None where the default itself could not be measured."""
    text: str
    """The choice, for people."""
    rejected: dict[str, str]
    """Candidates that the gate threw out, that crashed, hung or could not be launched -> why."""
    finalists: dict[str, tuple[float, float, float]]
    """Candidate -> speedup over the default, with the ends of its interval."""
    reason: str = ""
    """Why there is no entry."""


class TuneFolder:
    """A folder that this process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def planned(self) -> Planned:
        """What was asked. Raises a JournalError where no tuning was written."""
        file = self.path / PLAN
        if not file.is_file():
            raise RunFolderError(f"--resume {self.path} holds no tuning (no {PLAN}): give the folder that one was written to")
        return _read(file, Planned)

    def begin(self, planned: Planned, *, resumed: bool) -> None:
        """Write what is asked; where the tuning goes on, hold it against what was. Raises a JournalError."""
        if not resumed:
            with one_sentence(str(self.path)):
                if self.path.is_dir() and any(self.path.iterdir()):
                    raise RunFolderError(f"{self.path} is not empty: give another folder, or --resume {self.path}")
                self.path.mkdir(parents=True, exist_ok=True)
                replace_file(self.path / PLAN, msgspec.json.format(msgspec.json.encode(planned)) + b"\n")
            return
        before = self.planned()
        for name in ("fingerprint", "sources", "goals"):
            was, now = getattr(before, name), getattr(planned, name)
            if was != now:
                raise MismatchError(f"--resume {self.path}: {_difference(name, was, now)}; tune anew into another folder")

    def of(self, number: int, key: Key) -> Path:
        """The folder of one choice."""
        folder = self.path / f"{number:02d}-{re.sub(r'[^0-9a-zA-Z_]+', '-', str(key)).strip('-')}"
        with one_sentence(str(folder)):
            folder.mkdir(exist_ok=True)
        return folder


def load(folder: Path, name: str, kind: type[T]) -> T | None:
    """A file of one choice; None when it was not written yet."""
    path = folder / name
    return _read(path, kind) if path.is_file() else None


def save(folder: Path, name: str, value: msgspec.Struct) -> None:
    """Write a file of one choice, in one step."""
    with one_sentence(str(folder / name)):
        replace_file(folder / name, msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except ValueError as error:
        raise CorruptRunError(f"{path.name} in {path.parent} is damaged ({error}): remove that folder, or tune anew into another") from None


def _difference(name: str, was: object, now: object) -> str:
    """What is not as it was, for people."""
    if isinstance(was, dict) and isinstance(now, dict):
        return f"{name} differ ({_first(was, now)})"
    what = {"fingerprint": "the machine or its software is another", "goals": "other shapes or kernels are asked for"}
    return what.get(name, f"{name} differs")


def _first(was: Mapping[str, object], now: Mapping[str, object]) -> str:
    word = next(word for word in [*was, *now] if was.get(word) != now.get(word))
    return f"{word}: {was.get(word, 'nothing')} before, {now.get(word, 'nothing')} now"
