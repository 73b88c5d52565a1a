"""What the terminal shows: progress while measuring, and the tables at the end. Plain lines when it is not a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .entries import GroupDone
from .manifest import Settings
from .records import STATUSES, Case, Measurement
from .stats import latency

if TYPE_CHECKING:
    import pandas as pd

    from .plan import Group, Plan

STYLES = {"ok": "green", "wrong": "bold red", "failed": "red", "timeout": "red", "invalid": "yellow", "skipped": "dim"}


class TerminalProgress:
    """Says what is measured now, what came of each case, and how much time is left.

    On a terminal the last line moves; it is redrawn about once a second, since drawing takes time on the cores that are
    being measured. Elsewhere nothing but plain lines is printed.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._total = self._done = 0
        self._what = ""
        self._left_s: float | None = None
        self._group_began = time.monotonic()

    def begin(self, plan: Plan, settings: Settings, done: int) -> None:
        self._total, self._done = len(plan.cases), done
        groups = f"{len(plan.groups)} groups, {len(plan.cases)} cases ({len(plan.skipped)} of them skipped)"
        on = f" on {plan.cases[0].device}, protocol {settings.protocol.name}, {settings.threads} threads"
        again = f"; {done - len(plan.skipped)} are measured already" if done > len(plan.skipped) else ""
        self.console.print(f"{groups}{on}{again}", highlight=False)
        self.start()

    def start(self) -> None:
        """Begin to draw the line that moves, where there is a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def extended(self, cases: Sequence[Case]) -> None:
        self._total += len(cases)
        problems = len({case.group for case in cases})
        lengths = ", ".join(str(length) for length in sorted({case.seq_len for case in cases}))
        what = f"{problems} more group{'s' * (problems > 1)} to find where one kernel overtakes another: length {lengths}"
        self.console.print(what, highlight=False)

    def group(self, group: Group, number: int, of: int, left_s: float | None) -> None:
        self._left_s, self._group_began = left_s, time.monotonic()
        left = f", about {duration(left_s)} left" if left_s is not None else ""
        self.console.print(f"[bold]{number}/{of} {escape(group.operator)} {escape(group.label)}[/]{left}", highlight=False)

    def doing(self, case: Case | None, phase: str) -> None:
        self._what = f"{phase}: {case.kernel}" if case and phase not in ("timing", "energy") else phase
        self.tick()

    def done(self, case: Case, measurement: Measurement) -> None:
        if measurement.status == "skipped":
            return  # said in the report; here they would drown the rest
        self._done += 1
        style = STYLES[measurement.status]
        self.console.print(f"  {case.kernel:<26}[{style}]{measurement.status:<8}[/]{escape(outcome(measurement))}", highlight=False)

    def tick(self) -> None:
        if self._live:
            self._live.update(Text.from_markup(self._line()), refresh=True)

    def _line(self) -> str:
        left = ""
        if self._left_s is not None:
            left = f" · about {duration(max(self._left_s - (time.monotonic() - self._group_began), 0))} left"
        return f"[cyan]{self._done} of {self._total} cases · {escape(self._what)}{left}[/]"

    def end(self, ended: str | None) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if ended == "interrupted":
            self.console.print("[yellow]Stopped as asked; what was measured is kept.[/]")
        elif ended == "budget":
            self.console.print("[yellow]The budget is used up; what is missing can be measured with --resume.[/]")


class Quiet:
    """Hears the progress of a run and says nothing but that it goes on."""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self.tick = tick

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def outcome(measurement: Measurement) -> str:
    """One case in a few words: its latency, or why it has none."""
    if measurement.status != "ok":
        return measurement.reason or ""
    if not measurement.processes:
        return passed(measurement)
    interval = latency(measurement.processes)
    spread = f" ± {interval.half_width:.1%}" if interval.half_width < 1 else ""
    rms = f", {measurement.distance.relative_rms:.1e} off" if measurement.distance else ""
    marks = "".join(f" [{warning.code}]" for warning in measurement.warnings)
    return f"{seconds(interval.estimate)}{spread}{rms}{marks}"


def passed(measurement: Measurement) -> str:
    """What the gate found of a kernel that passed it without being timed: error ratios, and what was seen to run."""
    assert measurement.errors is not None
    told = [f"error {measurement.errors.max_ratio:.2g} × plain"]
    if measurement.probes:
        name = max(measurement.probes, key=measurement.probes.__getitem__)
        told.append(f"{len(measurement.probes)} probes, worst {measurement.probes[name]:.2g} × ({name})")
    if measurement.left_out:
        told.append(f"{len(measurement.left_out)} left out")
    if measurement.distance:
        told.append(f"{measurement.distance.relative_rms:.1e} off the exact result")
    if measurement.identity:
        told.append(f"ran: {measurement.identity}")
    marks = "".join(f" [{warning.code}]" for warning in measurement.warnings)
    return ", ".join(told) + marks


def gate_summary(console: Console, cases: Sequence[Case], measurements: Mapping[str, Measurement]) -> int:
    """Repeat what did not pass, with all that is known, and count; returns how many did not."""
    done = [(case, measurements[case.id]) for case in cases if case.id in measurements]
    bad = [(case, measurement) for case, measurement in done if measurement.status not in ("ok", "skipped")]
    for case, measurement in bad:
        what = f"{case.kernel} at {case.label}: {measurement.reason}"
        console.print(f"[{STYLES[measurement.status]}]{measurement.status}[/] {escape(what)}", highlight=False)
    counts: Counter[str] = Counter(measurement.status for _, measurement in done)
    counts["missing"] = len(cases) - len(done)
    told = [f"{counts[status]} {status}" for status in (*STATUSES, "missing") if counts[status]]
    console.print(f"{len(cases)} cases: {', '.join(told)}", highlight=False)
    return len(bad) + counts["missing"]


def summary(
    console: Console, results: pd.DataFrame, winners: pd.DataFrame, groups: Sequence[GroupDone] = (), crossovers: Sequence[str] = ()
) -> None:
    """The fastest exact kernel of every shape, what did not work, where the time went, and how many cases ended how.

    `crossovers`: sentences about where along the sequence axis the fastest kernel changes.
    """
    if len(winners):
        console.print(_winners_table(winners))
    for sentence in crossovers:
        console.print(escape(sentence), highlight=False)
    for row in results[results["status"].isin(["wrong", "failed", "timeout", "invalid"])].to_dict("records"):
        what = f"{row['kernel']} at {row['label']}: {row['reason']}"
        console.print(f"[{STYLES[row['status']]}]{row['status']}[/] {escape(what)}", highlight=False)
    if groups:
        console.print(_where_time_went(groups), highlight=False)
    counts = Counter(results["status"])
    told = [f"{counts[status]} {status}" for status in (*STATUSES, "missing") if counts[status]]
    console.print(f"{len(results)} cases: {', '.join(told)}", highlight=False)


def _where_time_went(groups: Sequence[GroupDone]) -> str:
    """Wall time of the groups by phase, the largest share first."""
    wall_s = sum(group.wall_s for group in groups)
    spent: Counter[str] = Counter()
    for group in groups:
        spent.update(group.phases_s)
    shares = ", ".join(f"{phase} {used / wall_s:.0%}" for phase, used in spent.most_common() if used >= 0.005 * wall_s)
    return f"{duration(wall_s)} of measuring: {shares}"


def _winners_table(winners: pd.DataFrame) -> Table:
    import pandas as pd  # only here: progress must be there at once

    table = Table(title="Fastest exact kernel per shape", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("shape", "fastest"):
        table.add_column(name)
    for name in ("latency", "speedup"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("over", no_wrap=True)
    exact = winners[winners["division"] == "exact"].sort_values("operator", kind="stable")
    for operator, rows in exact.groupby("operator", sort=False):
        table.add_section()
        for row in rows.to_dict("records"):
            tied = f" = {_short(row['runner_up'])}" if row["tie"] else ""
            speedup = f"{row['speedup']:.2f}×" if pd.notna(row["speedup"]) else "–"
            label, fastest = f"{operator} {row['label']}", _short(row["kernel"]) + tied
            table.add_row(escape(label), escape(fastest), seconds(row["latency_s"]), speedup, escape(_short(row["baseline"])))
    return table


def _short(kernel: object) -> str:
    return kernel.partition("/")[2] if isinstance(kernel, str) else "–"


def seconds(value: float) -> str:
    """A latency in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def duration(value: float) -> str:
    """A waiting time, roughly."""
    return f"{value:.0f} s" if value < 90 else f"{value / 60:.0f} min"
