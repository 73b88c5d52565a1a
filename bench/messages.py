"""What the parent and its workers say to each other: one JSON object per line on a file descriptor of their own.

Standard output is left to the libraries, which print there.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from .manifest import Settings
from .records import Case, Ceilings, Measurement, Phase

Joules = Literal["none", "finalists", "all"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the kernels of one side of a comparison come from."""

    folder: str | None = None
    """Path of a revision of the `kernels` folder; None: what is installed."""
    load: tuple[str, ...] = ()
    """Paths of its plugin files."""
    problems: str | None = None
    """Path of the revision whose problems it shares; None: those that are installed."""


class Tried(msgspec.Struct, frozen=True):
    """A kernel built with a choice that is tried."""

    kernel: str
    pin: dict[str, Any]
    """Fields of a `kernels._tuned.Pin`: no kernels are imported here, since a worker may be asked for those of another revision."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Tuning: what the names of the cases stand for."""

    entries: dict[str, Tried]
    """"attention/fused [64×64 w4 s3]" -> that kernel with that tile."""
    simulated: str = ""
    """Name of the file of --load whose `clock` stands in for the device's: a device that is simulated, for tests. Empty: a real one."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker process is to do."""

    kind: Literal["group", "check", "ceilings"]
    device: str
    settings: Settings
    worker: int
    """Counts the workers of a run; goes into every Process."""
    recorder: str
    """Path of the flight recorder."""
    cases: list[Case] = []
    dtypes: tuple[str, ...] = ()
    """Ceilings: the dtypes whose matmul rate is wanted."""
    load: tuple[str, ...] = ()
    """Paths of plugin files."""
    sides: dict[str, Source] = {}
    """Comparisons: side -> where its kernels come from; empty in a sweep."""
    trial: Trial | None = None
    """Tuning: the cases are candidates."""
    alone: bool = False
    """Comparisons: there is one side in this process, and registry and problems are its own, too."""
    first: bool = True
    """False for the further processes of --processes: memory and energy are known already."""
    stop_after_s: float | None = None
    """Time left in the budget."""
    known_awkward: tuple[str, ...] = ()
    """Kernels that have been through the awkward lengths of the gate at another problem."""
    joules: Joules = "finalists"
    """Whose joules are measured: of nobody, of the fastest kernels, of all."""
    joules_allowance_s: float | None = None
    """Seconds that this may take; None: as many as it needs."""
    ceilings: Ceilings | None = None


class Doing(msgspec.Struct, frozen=True, tag="doing"):
    """Said before it is done, so that a crash or a hang is put down to the right case."""

    case: str
    phase: Phase


class Done(msgspec.Struct, frozen=True, tag="done"):
    """One case is measured, wrong or failed."""

    measurement: Measurement


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The ceilings of the machine."""

    ceilings: Ceilings


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The worker has nothing more to say; where its time went."""

    phases_s: dict[str, float]


Message = Doing | Done | Found | Finished


class Channel:
    """The worker's end: writes messages to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def say(self, message: Message) -> None:
        """Send one message at once."""
        self._file.write(msgspec.json.encode(message) + b"\n")


class Recorder:
    """A flight recorder: a few bytes of shared memory that survive the worker's death.

    While kernels are timed nothing may wake the parent, so the worker only notes here, before each leg, which case it
    is about to run; the parent looks when the worker has died or has not moved for too long.
    """

    _FORMAT = "<qq"
    _IDLE = -1

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(struct.pack(self._FORMAT, self._IDLE, 0))
        self._file = path.open("r+b")
        self._memory = mmap.mmap(self._file.fileno(), struct.calcsize(self._FORMAT))
        self._legs = 0

    def mark(self, index: int) -> None:
        """Note that the case with this index in the request is about to run; -1 for none."""
        self._legs += 1
        struct.pack_into(self._FORMAT, self._memory, 0, index, self._legs)

    def clear(self) -> None:
        """Note that no case is running."""
        self.mark(self._IDLE)

    def read(self) -> tuple[int | None, int]:
        """(index of the running case or None, legs so far)."""
        index, legs = struct.unpack_from(self._FORMAT, self._memory, 0)
        return (None if index == self._IDLE else index), legs

    def close(self) -> None:
        """Let go of the memory and the file."""
        self._memory.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
