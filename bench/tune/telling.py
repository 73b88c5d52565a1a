"""What the terminal shows of a tuning: progress, reasons, and the table at the end."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from kerneldyno.kernels import _tuned

from ..records import Measurement
from ..stats import Interval, latency
from ..terminal import seconds
from .records import told

if TYPE_CHECKING:
    from rich.console import Console

    from .folder import Left, Outcome
    from .goals import Asked, Goal, Goals
    from .prune import Sieved


def begin(console: Console, found: Goals, folder: Path) -> None:
    """What will be done, and where."""
    what = f"{len(found.found)} choice{'s' * (len(found.found) != 1)} to make on {found.device} ({found.device.name})"
    console.print(f"{what}; what is measured goes to {escape(str(folder))}", highlight=False, soft_wrap=True)


def goal(console: Console, one: Goal, number: int, of: int) -> None:
    """Which choice is made now."""
    shared = f", for {one.shared} problems" if one.shared > 1 else ""
    text = f"{number}/{of} {one.kernel.name} {one.key}"
    console.print(f"[bold]{escape(text)}[/] at {escape(one.problem.label)}{shared}; default {one.task.default}", highlight=False)


@contextmanager
def compiling(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Around compiling: a function that hears how many of how many forms are done."""
    columns = (TextColumn("  compiling"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def candidates(console: Console, one: Goal, sieved: Sieved) -> None:
    """What would be measured, and why the others would not."""
    console.print(f"  {len(sieved.kept)} to be measured: {', '.join(sieved.kept)}", highlight=False)
    table = Table("tile", "left out because it", box=box.SIMPLE, title_justify="left")
    for name, reason in sieved.left_out.items():
        table.add_row(name, escape(reason))
    if sieved.left_out:
        console.print(f"  {len(sieved.left_out)} of {1 + len(one.task.candidates)} left out:", highlight=False)
        console.print(table)


def heat(console: Console, left: Left, measured: Mapping[str, Measurement], names: Sequence[str]) -> None:
    """Who goes on to the finals."""
    lost = Counter(one.status for one in measured.values() if one.status != "ok")
    out = "".join(f", {count} {status}" for status, count in sorted(lost.items()))
    usual = latency(measured[left.kept[0]].processes).estimate
    ran = [f"{name} {seconds(latency(measured[name].processes).estimate)}" for name in names] or ["none"]
    numbers = f"{len(left.kept)} of {len(left.kept) + len(left.left_out)} candidates measured{out}"
    console.print(f"  heat: {numbers}; default {seconds(usual)}; finalists: {', '.join(ran)}", highlight=False)


def outcome(console: Console, one: Outcome) -> None:
    """What came of one choice."""
    for name, reason in one.rejected.items():
        console.print(f"  thrown out: {escape(name)}: {escape(reason)}", highlight=False)
    if one.entry is None:
        console.print(f"  [red]no choice[/]: {escape(one.reason)}", highlight=False)
    else:
        stays = "the default stays" if one.text == one.entry.evidence.default else f"chosen: {one.text}"
        console.print(f"  [green]{escape(stays)}[/]: {_ratio(one)}", highlight=False)


def table(console: Console, outcomes: Sequence[Outcome]) -> None:
    """All choices."""
    if not outcomes:
        return
    shown = Table("kernel", "for", "default", "choice", "speedup (interval)", box=box.SIMPLE)
    for one in outcomes:
        default = one.entry.evidence.default if one.entry else one.text
        key = f"{one.key.architecture} {one.key.dtype} {one.key.size} {one.key.length}{' causal' * one.key.causal} {one.key.traits}".strip()
        shown.add_row(one.key.function, key, default, one.text if one.entry else "none", _ratio(one))
    console.print(shown)


def _ratio(one: Outcome) -> str:
    """The speedup of the choice, or how near the best of the others came."""
    if one.entry is None:
        return escape(one.reason)
    if one.text in one.finalists:
        return told(Interval(*one.finalists[one.text]))
    return f"1; {escape(one.entry.evidence.contested)}"


def end(console: Console, where: Path, folder: Path, *, open_goals: int, asked: Asked) -> None:
    """Where the choices are, and how to go on."""
    console.print(f"choices: {escape(str(where))}", highlight=False, soft_wrap=True)
    if asked.book is not None:
        console.print(f"kernels read them when {_tuned.PLACE} names that folder", highlight=False)
    if open_goals:
        files = [("--out", asked.book)] if asked.book else []
        words = ["kerneldyno", "tune", "--resume", str(folder)]
        words += [word for name, path in [*(("--load", path) for path in asked.run.load), *files] for word in (name, str(path))]
        more = f"{open_goals} choice{'s' * (open_goals != 1)} not made: go on with {shlex.join(words)}"
        console.print(escape(more), highlight=False, soft_wrap=True)
