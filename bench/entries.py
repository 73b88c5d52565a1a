"""The lines of journal.jsonl: what happened to a run, in order. No torch, no kernels."""

from __future__ import annotations

from typing import Literal

import msgspec

from .records import Case, Ceilings, Measurement


class Session(msgspec.Struct, frozen=True, tag="session"):
    """The harness began, or began again, to work on this run."""

    started: str


class Attempt(msgspec.Struct, frozen=True, tag="attempt"):
    """A worker is about to do this: written before it starts, so that a case that kills machines is known."""

    case: str
    phase: str


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """One case is done."""

    measurement: Measurement


class CeilingsFound(msgspec.Struct, frozen=True, tag="ceilings"):
    """What the machine can do, as measured in this session."""

    ceilings: Ceilings


class FirstLook(msgspec.Struct, frozen=True, tag="look"):
    """A comparison's first look is over: how many processes it had of each cell. What is measured from here on is for the second."""

    processes: dict[str, int]


class Extended(msgspec.Struct, frozen=True, tag="extended"):
    """The plan grew while the run went on: these cases belong to it like those of the manifest, whose own stay as they are.

    Versions that know schema 1 only cannot read this: a manifest of that schema gets a higher one before.
    """

    cases: list[Case]


class GroupDone(msgspec.Struct, frozen=True, tag="group", kw_only=True):
    """Wall time of one worker process, and where it went: start, build, check, memory, warmup, timing, energy, other."""

    group: str
    wall_s: float
    phases_s: dict[str, float]


class SessionEnd(msgspec.Struct, frozen=True, tag="end", kw_only=True):
    """The harness stopped in an orderly way."""

    reason: Literal["finished", "interrupted", "budget"]
    wall_s: float


Record = Session | Attempt | Measured | CeilingsFound | FirstLook | Extended | GroupDone | SessionEnd
"""One line of journal.jsonl."""
