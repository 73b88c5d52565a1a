"""What came of compiling: rows, the file that holds them, and what changed since an earlier one. Plain data, no Triton."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .. import privacy
from ..plan import UsageError
from .cards import arch
from .facts import Facts
from .judge import faults

if TYPE_CHECKING:
    from .pool import Compiled

SCHEMA = 1


class Row(msgspec.Struct, frozen=True):
    """One configuration, and what its binary holds."""

    kernel: str
    """The device kernel: prefill_kernel."""
    arch: str
    dtype: str
    size: str
    variant: str
    tile: str
    warps: int
    stages: int
    spills_allowed: int
    facts: Facts | None
    faults: list[str]
    """Why it must not be offered; empty when it may be."""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is, whatever came of it."""
        return (self.kernel, self.arch, self.dtype, self.size, self.variant, self.tile)


class Report(msgspec.Struct, frozen=True):
    """Everything that one call found."""

    triton: str
    seconds: float
    """That it took from beginning to end, with all processes side by side."""
    rows: list[Row]
    schema: int = SCHEMA


def row(done: Compiled) -> Row:
    """Judged."""
    asked, facts = done.configuration, done.facts
    return Row(
        kernel=asked.name,
        arch=arch(asked.capability),
        dtype=asked.dtype,
        size=asked.size,
        variant=asked.variant,
        tile=asked.tile,
        warps=asked.warps,
        stages=asked.stages,
        spills_allowed=asked.spills_allowed,
        facts=facts,
        faults=[privacy.scrub(done.reason)] if facts is None else faults(asked, facts),
    )


def write_json(report: Report, path: Path) -> None:
    """A line for each row, so that two files differ in what changed. Raises UsageError where the file cannot be written."""
    head = msgspec.json.encode(msgspec.structs.replace(report, rows=[])).replace(b'"rows":[]', b'"rows":[\n%s\n]')
    content = head % b",\n".join(msgspec.json.encode(one) for one in report.rows) + b"\n"
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--json {path}: cannot be written ({error.strerror}): give another file") from error


def read_json(path: Path) -> Report:
    """A report that `write_json` wrote. Raises UsageError for any other file."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise UsageError(f"--baseline {path}: cannot be read ({error.strerror}): give a file that codegen --json wrote") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"--baseline {path}: is not what codegen --json writes ({error}): write it again") from error
    if found.schema != SCHEMA:
        raise UsageError(f"--baseline {path}: has schema {found.schema}, this version reads {SCHEMA}: write it again")
    return found


def write_csv(report: Report, path: Path) -> None:
    """One line for each row. Raises UsageError where the file cannot be written."""
    flat = [_flat(one) for one in report.rows]
    names = list(dict.fromkeys(name for one in flat for name in one))
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(flat)
    except OSError as error:
        raise UsageError(f"--csv {path}: cannot be written ({error.strerror}): give another file") from error


def _flat(one: Row) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(one, name) for name in ("kernel", "arch", "dtype", "size", "variant", "tile")}
    facts = one.facts
    names = ("registers", "spill_stores", "spill_loads", "local_bytes", "shared_bytes", "tensor_columns", "threads", "instructions")
    found |= {name: getattr(facts, name) if facts else None for name in names}
    found |= {"spills_allowed": one.spills_allowed}
    found |= {
        "programs": facts.occupancy.programs if facts else None,
        "programs_limited_by": facts.occupancy.limited_by if facts else None,
        "tensor": tensor(facts) if facts else None,
        **{f"registers_{role}": facts.traded.get(role) if facts else None for role in ("multiply", "load")},
    }
    prediction = facts.prediction if facts else None
    found |= {name: getattr(prediction, name, None) for name in ("limited_by", "overlapped", "serial")}
    return found | {"faults": "; ".join(one.faults)}


def registers(facts: Facts) -> str:
    """ "168→240/24": of a thread at the launch, and then of one that multiplies and of one that loads, where warp groups have roles."""
    return f"{facts.registers}→{'/'.join(map(str, facts.traded.values()))}" if facts.traded else str(facts.registers)


def tensor(facts: Facts) -> str:
    """ "32 HGMMA": instructions on tensor cores, for people."""
    return " ".join(f"{count} {opcode}" for opcode, count in facts.tensor.items())


def changes(before: Sequence[Row], now: Sequence[Row]) -> Iterator[str]:
    """What is otherwise than it was, a line each: registers, spills, shared memory, instructions on tensor cores, faults; what is new.

    What was not compiled now is passed over where a subset was asked for: only other tiles of the same form are said to be gone.
    """
    known, present = {one.key: one for one in before}, {one.key for one in now}
    forms = {one.key[:-1] for one in now}
    for one in now:
        earlier = known.get(one.key)
        if earlier is None:
            yield f"{name(one)}: new: {_said(one)}"
        elif _said(earlier) != _said(one):
            yield f"{name(one)}: {_said(earlier)} → {_said(one)}"
    for one in before:
        if one.key not in present and one.key[:-1] in forms:
            yield f"{name(one)}: no longer offered: {_said(one)}"


def name(one: Row) -> str:
    """For people."""
    return f"{one.arch} {one.kernel} {one.dtype} {one.size}, {one.variant}, {one.tile}"


def _said(one: Row) -> str:
    if one.facts is None:
        return one.faults[0]
    found = f"{registers(one.facts)} registers, {one.facts.spills} spills, {one.facts.shared_bytes / 1024:.0f} KB"
    return f"{found}, {tensor(one.facts)}" if one.facts.tensor else found
