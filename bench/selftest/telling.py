"""What the terminal shows of a self-test: where it is, what was missed, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .findings import Control, Finding, Found, Rate, Tally

if TYPE_CHECKING:
    from rich.console import Console

REDRAWN_S = 0.5
"""More often would take time from what is measured."""

MOST_TOLD = 40
"""Lines about what went wrong in one section."""


class Teller:
    """One moving line on a terminal; on anything else only what matters, line by line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._section = self._what = ""
        self._count = self._wrong = 0
        self._began = self._drawn = time.monotonic()

    def __enter__(self) -> Teller:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def section(self, name: str) -> None:
        """Another one begins."""
        self._section, self._count, self._wrong, self._began = name, 0, 0, time.monotonic()
        self.console.print(f"[bold]{escape(name)}[/]", highlight=False)

    def say(self, what: str) -> None:
        """What is tried now."""
        self._what = what
        self.tick()

    def tick(self) -> None:
        """Something goes on."""
        if self._live and time.monotonic() - self._drawn > REDRAWN_S:
            self._drawn = time.monotonic()
            line = f"{self._section}: {self._count} done in {self._drawn - self._began:.0f} s · {self._what}"
            self._live.update(Text(line, style="cyan", no_wrap=True, overflow="ellipsis"), refresh=True)

    def found(self, item: Found) -> None:
        """Print what went wrong as soon as it is known; of very much the beginning, the document has it all."""
        self._count += 1
        missed = isinstance(item, Finding) and item.must and item.caught is False
        if missed or (isinstance(item, Control) and item.alarm):
            self._wrong += 1
            if self._wrong <= MOST_TOLD:
                what = "missed" if missed else "false alarm"
                self.console.print(f"  [bold red]{what}[/] {escape(told(item))}", highlight=False, soft_wrap=True)
        self.tick()

    def done(self) -> None:
        """The section is over."""
        if self._wrong > MOST_TOLD:
            self.console.print(f"  [bold red]and {self._wrong - MOST_TOLD} more[/]", highlight=False)
        self.console.print(f"  {self._count} done in {time.monotonic() - self._began:.0f} s", highlight=False)


def told(item: Found) -> str:
    """One finding in a line."""
    what = item.plant if isinstance(item, Finding) else item.what
    return f"{item.section} · {what} · {item.where}" + (f": {item.said}" if item.said else "")


def summary(console: Console, tallies: Sequence[Tally]) -> None:
    """The table and the verdict; what went wrong was told when it happened."""
    console.print(table(tallies))
    failed = [one.section for one in tallies if one.failed]
    verdict = f"[bold red]failed:[/] {escape(', '.join(failed))}" if failed else "[green]everything that must be caught was caught[/]"
    console.print(verdict, highlight=False)


def table(tallies: Sequence[Tally]) -> Table:
    """A row for each section: faults caught, right kernels refused, and the exact 95 % intervals of both shares in percent."""
    made = Table(title="Self-test", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("section", no_wrap=True)
    for name in ("caught", "95 %", "beyond", "alarms", "95 %", "untried"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in tallies:
        style = "bold red" if one.failed else None
        caught, alarms = _of(one.caught, one.planted), _of(one.alarms, one.right)
        cells = (caught, interval(one.detection), _of(one.beyond_caught, one.beyond), alarms, interval(one.false_alarms))
        made.add_row(escape(one.section), *cells, str(one.not_tried or "–"), style=style)
    made.caption = "beyond: faults below what the gate promises to see; alarms: right kernels refused"
    return made


def _of(count: int, of: int) -> str:
    return f"{count}/{of}" if of else "–"


def interval(rate: Rate) -> str:
    """The range of a share's true value in percent."""
    return f"{100 * rate.low:.1f}–{100 * rate.high:.1f}" if rate.of else "–"
