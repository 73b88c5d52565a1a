"""What the tables of the page of several runs show: in each cell a line per run, never a blank that could be read as zero."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import tables, units
from .shapes import grids, variants
from .together import has_number, is_unplanned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .shapes import Grid
    from .tables import Cell
    from .together import Member, Row, Together


@dataclass(frozen=True)
class Line:
    """One run in a cell."""

    letter: str
    """Nothing where one line stands for all of the stack's runs."""
    cell: Cell
    reason: str = ""
    """Where the page tells why there is no number: an element's id."""


@dataclass(frozen=True)
class Stack:
    """A kernel at a shape: a line for each run that planned the shape, and of two runs how many times as fast the second was."""

    lines: list[Line]
    dtype: str
    whose: str
    """All of its runs, for a line that stands for them: their letters, or "all"."""
    ratio: str = ""


@dataclass(frozen=True)
class Board:
    """A grid of stacks, exact and approximate kernels apart, each with the fastest on top."""

    grid: Grid
    exact: list[tuple[str, list[Stack | None]]]
    approximate: list[tuple[str, list[Stack | None]]]
    empty: list[str]
    """Kernels that were planned, and have a number in no run."""


def boards(together: Together) -> list[Board]:
    """The grids of the shared problems, operator by operator."""
    own = [row for row in together.planned if row["group"] in together.shared]
    by_case = variants(case for case in together.cases.values() if case.group in together.shared)
    reasons = {case: id_ for id_, _, _, cases in numberless(together) for case in cases}
    return [_board(together, grid, reasons) for grid in grids(own, by_case)]


def ratio(together: Together, case: str) -> float | None:
    """Time of the first of two runs over time of the second, from medians taken at different times."""
    if len(together.members) != 2:
        return None
    first, second = (together.row(member, case) for member in together.members)
    return first["latency_s"] / second["latency_s"] if has_number(first) and has_number(second) else None


def numberless(together: Together) -> list[tuple[str, str, str, dict[tuple[str, str], Row]]]:
    """(id, status, reason, (run's letter, case) -> row) of every planned case without a number, what went wrong first."""
    found: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for member in together.members:
        for case, row in member.rows.items():
            if not has_number(row):
                told = found.setdefault((row["status"], row["reason"] or "no reason was recorded"), {})
                told[member.letter, case] = row
    order = list(tables.STATES)
    ranked = sorted(found.items(), key=lambda item: order.index(item[0][0]))
    return [(f"reason-{number}", status, reason, own) for number, ((status, reason), own) in enumerate(ranked, 1)]


def grouped(own: dict[tuple[str, str], Row]) -> list[tuple[Row, str]]:
    """(row, letters of its runs) of the cases without a number that share a reason, each case once."""
    letters: dict[str, list[str]] = {}
    for letter, case in own:
        letters.setdefault(case, []).append(letter)
    first = {case: row for (_, case), row in own.items()}
    return [(first[case], ", ".join(runs)) for case, runs in letters.items()]


def headings(together: Together) -> list[tuple[str, str, str]]:
    """(heading, its second line, letter of the run or nothing) of each column of `listing`."""
    own = [
        (name, f"{member.letter}{unit}", member.letter)
        for member in together.members
        for name, unit in (("latency", ""), ("speedup", ", × baseline"))
    ]
    both = [(f"{together.members[1].letter} ÷ {together.members[0].letter}", "speed, unpaired", "")] * (len(together.members) == 2)
    return [("kernel", "operator/name", ""), ("shape", "", ""), *own, *both]


def listing(together: Together) -> list[tuple[Row, list[tuple[str, Any]]]]:
    """Each kernel and problem that some run has a number of, with (text, sort key) of each column."""
    made = []
    operators = list(dict.fromkeys(row["operator"] for row in together.planned))
    for planned in sorted(together.planned, key=lambda row: operators.index(row["operator"])):
        own = [together.row(member, planned["case"]) for member in together.members]
        if any(map(has_number, own)):
            cells: list[tuple[str, Any]] = [
                (planned["kernel"], planned["kernel"]),
                (planned["label"], planned["batch"] * planned["seq_len"]),
            ]
            cells += [cell for row in own for cell in _pair(row)]
            if len(own) == 2:
                apart = ratio(together, planned["case"])
                cells.append((units.times(apart), apart))
            made.append((planned, cells))
    return made


def _board(together: Together, grid: Grid, reasons: dict[tuple[str, str], str]) -> Board:
    columns = [(columns.title, batch, length) for columns in grid.columns for batch, length in columns.shapes]
    cases = {kernel: [grid.cells.get((kernel, *column)) for column in columns] for kernel in grid.kernels}
    made = {kernel: [_stack(together, row, reasons) if row else None for row in own] for kernel, own in cases.items()}
    empty = [kernel for kernel, own in cases.items() if not any(_has_number(together, row) for row in own if row)]
    order = sorted(
        (kernel for kernel in grid.kernels if kernel not in empty),
        key=lambda kernel: -_standing(together, [row for row in cases[kernel] if row]),
    )
    approximate = {kernel for kernel in order if any(row["approximate"] for row in cases[kernel] if row)}
    return Board(
        grid,
        [(kernel, made[kernel]) for kernel in order if kernel not in approximate],
        [(kernel, made[kernel]) for kernel in order if kernel in approximate],
        empty,
    )


def _has_number(together: Together, planned: Row) -> bool:
    return any(has_number(together.row(member, planned["case"])) for member in together.members)


def _stack(together: Together, planned: Row, reasons: dict[tuple[str, str], str]) -> Stack:
    case = planned["case"]
    asked = [member for member in together.members if planned["group"] in member.groups]
    lines = [_line(member, together.row(member, case), reasons.get((member.letter, case), "")) for member in asked]
    whose = "all" if len(asked) == len(together.members) else ", ".join(member.letter for member in asked)
    if len({(line.cell.text, line.reason) for line in lines}) == 1 and lines[0].cell.state != "ok":
        lines = [replace(lines[0], letter="")]
    return Stack(lines, planned["dtype"], whose, units.times(ratio(together, case)))


def _line(member: Member, row: Row, reason: str) -> Line:
    if is_unplanned(row):
        return Line(member.letter, tables.Cell(text="not planned", sign="·", state="unplanned"))
    return Line(member.letter, tables.speedup_cell(row, member.marks), reason)


def _pair(row: Row) -> Sequence[tuple[str, Any]]:
    """Latency and speedup of a run, or the word for why there is none."""
    if has_number(row):
        return (units.quantity(row["latency_s"], "s"), row["latency_s"]), (units.times(row["speedup"]), row["speedup"])
    return (("not planned" if is_unplanned(row) else tables.STATES[row["status"]][0]), None), ("", None)


def _standing(together: Together, own: Sequence[Row]) -> float:
    """For ordering only: the median speedup over shapes and runs, kernels without any last."""
    every = [together.row(member, row["case"])["speedup"] for member in together.members for row in own]
    speedups = sorted(speedup for speedup in every if speedup)
    return speedups[len(speedups) // 2] if speedups else -1.0
