"""What the terminal shows of compiling: a bar while it goes on, the table, what fails and why. Plain lines when it is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import rows

if TYPE_CHECKING:
    from .rows import Report, Row

EVERY_S = 30.0
"""How often a plain line says how far it is."""
WIDE = 200
"""Columns where nobody says how many there are: a log."""
SHORT = {"special functions": "special", "shared memory": "shared", "device memory": "device", "tensor cores": "tensor"}


class Teller:
    """Says how far it is, and what came of it."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console if console.is_terminal else Console(file=console.file, width=WIDE, no_color=True)
        self._total, self._done, self._failed = total, 0, 0
        self._said = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("compiling", total=total)

    def __enter__(self) -> Teller:
        self._console.print(f"{self._total} configurations", highlight=False)
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def done(self, row: Row) -> None:
        self._done += 1
        self._progress.update(self._task, advance=1, description=escape(f"{row.arch} {row.kernel}"))
        if row.faults:
            self._fault(row)
        elif not self._console.is_terminal and time.monotonic() - self._said > EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{self._done} of {self._total}", highlight=False)

    def _fault(self, row: Row) -> None:
        self._console.print(f"[red]fails[/] {escape(rows.name(row))}: {escape('; '.join(row.faults))}", highlight=False, soft_wrap=True)

    def table(self, report: Report) -> None:
        """Every row."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in ("arch", "kernel", "dtype", "size", "variant", "tile"):
            table.add_column(heading, overflow="fold")
        for heading in ("registers", "spills", "shared KB", "programs"):
            table.add_column(heading, justify="right")
        for heading in ("by", "tensor cores", "predicted limit", "overlapped", "serial"):
            table.add_column(heading, overflow="fold")
        for row in report.rows:
            table.add_row(*(escape(cell) for cell in _cells(row)), style="red" if row.faults else None)
        self._console.print(table)

    def changes(self, before: Report, report: Report) -> None:
        """What differs from an earlier report."""
        lines = list(rows.changes(before.rows, report.rows))
        self._console.print(f"[bold]since the baseline (triton {escape(before.triton)}): {len(lines) or 'no'} changes[/]", highlight=False)
        for line in lines:
            self._console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)

    def summary(self, report: Report, wanted: int) -> None:
        """A line for each device kernel and card, what fails, and the count."""
        for arch, kernel in dict.fromkeys((row.arch, row.kernel) for row in report.rows):
            mine = [row for row in report.rows if (row.arch, row.kernel) == (arch, kernel)]
            self._console.print(_summed(f"{arch} {kernel}", mine), highlight=False)
        failed = [row for row in report.rows if row.faults]
        if failed:
            self._console.print(f"[bold red]{len(failed)} must not be offered:[/]", highlight=False)
            for row in failed:
                self._fault(row)
        self._console.print(
            f"{len(report.rows)} of {wanted} compiled in {report.seconds:.0f} s with triton {escape(report.triton)}, {len(failed)} fail. "
            "Limits are predicted by counting instructions, not measured.",
            highlight=False,
            soft_wrap=True,
        )


def _summed(name: str, mine: Sequence[Row]) -> str:
    facts = [row.facts for row in mine if row.facts]
    forms = "1 form" if len(mine) == 1 else f"{len(mine)} forms"
    if not facts:
        return f"{name}: {forms}, none compiles"
    spilling = [found.spills for found in facts if found.spills]
    spills = f"{len(spilling)} spill, at most {max(spilling)}" if spilling else "none spills"
    shared = max(found.shared_bytes for found in facts) / 1024
    return f"{name}: {forms}, up to {max(found.registers for found in facts)} registers, {shared:.0f} KB shared; {spills}"


def _cells(row: Row) -> list[str]:
    named = [row.arch, row.kernel.removesuffix("_kernel"), {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}[row.dtype]]
    named += [row.size, row.variant, row.tile]
    facts = row.facts
    if facts is None:
        return [*named, "", "", "", "", "", "", "", "", ""]
    found = [rows.registers(facts), str(facts.spills or ""), f"{facts.shared_bytes / 1024:.0f}", str(facts.occupancy.programs)]
    found += [SHORT.get(facts.occupancy.limited_by, facts.occupancy.limited_by), rows.tensor(facts)]
    prediction = facts.prediction
    if prediction is None:
        return [*named, *found, "", "", ""]
    shares = ["" if share is None else f"{share:.0%}" for share in (prediction.overlapped, prediction.serial)]
    return [*named, *found, SHORT.get(prediction.limited_by, prediction.limited_by), *shares]
