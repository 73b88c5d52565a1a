"""The page of a history: what was read, which latencies changed their level, one small chart per series; one file, offline.

In the same dress as the report of a run, whose style, script and chart library it shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import history_text, shell, summary, tables, units
from .conditions import conditions
from .figures import looks_of
from .frame import replacing
from .history import History, has_number, read
from .history_figures import over_runs
from .method import machine
from .names import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .history import Row, Series

MOST_DRAWN = 12
"""Charts of one kind of conditions that stand open; the others are folded away below."""
SAVED = (
    "created", "commit", "run", "fingerprint", "conditions", "protocol", "kernel", "label", "device", "status", "reason",
    "latency_s", "latency_low_s", "latency_high_s", "interval_kind", "speedup", "peak_bytes", "error_max_ratio",
    "error_relative_rms", "energy_j", "warnings",
)  # fmt: skip
"""The columns that can be saved from the page; the frame has more."""


@dataclass(frozen=True)
class Panel:
    """One series on the page."""

    id: str
    series: Series
    takeaway: str
    spoken: str
    """What a screen reader says instead of the picture."""
    has_chart: bool
    table: list[tuple[Row, list[str]]]


@dataclass(frozen=True)
class Part:
    """The series of the same conditions."""

    id: str
    heading: str
    takeaway: str
    environment: list[tuple[str, str]]
    open: list[Panel]
    folded: list[Panel]


def render(folders: Sequence[Path | str], out: Path | str) -> Path:
    """Read runs (see `history.read`) and write the page to `out`; its path.

    Raises RunFolderError when no run can be read, MissingLibraryError, and OSError.
    """
    return write(read(folders), out)


def write(history: History, out: Path | str, *, plain: bool = False) -> Path:
    """Write the page of a history to `out`, making the folder that it lies in; its path. `plain` as in `page.render`."""
    out = Path(out)
    text = html(history, plain=plain)
    out.parent.mkdir(parents=True, exist_ok=True)
    return replacing(out, lambda path: path.write_text(text, encoding="utf-8"))


def html(history: History, *, plain: bool = False) -> str:
    """The page as text."""
    looks = looks_of(history.rows)
    panels = [_panel(number, series) for number, series in enumerate(history.series, 1)]
    drawn = {panel.id: over_runs(panel.series, looks[panel.series.case["kernel"]]) for panel in panels}
    figures = {name: figure for name, figure in drawn.items() if figure}
    return shell.render(
        "history.html.j2",
        figures=figures,
        payloads={"csv": history.frame[list(SAVED)].to_csv(index=False)},
        styles=["history.css"],
        words={"count": units.count, "short": short, "state": _state, "moment": summary.moment},
        plain=plain,
        history=history,
        subject=history_text.subject(history),
        headline=history_text.headline(history),
        coverage=summary.coverage([row for row in history.rows if not history_text.is_unplanned(row)]),
        changes=[_change(panel, number) for panel in panels for number in range(len(panel.series.changes))],
        notes=history_text.notes(history),
        parts=_parts(history, panels),
        headings=_headings(history),
        listing=[(panel, _listed(panel.series, history)) for panel in panels],
        runs=[_run(history, number) for number in range(len(history.runs))],
        method=history_text.method(),
        options=_options(history.rows),
    )


def _panel(number: int, series: Series) -> Panel:
    case = series.case
    spoken = f"Latency of {case['kernel']} at {case['label']} over {units.count(len(series.rows), 'run')}"
    table = [(row, _cells(row)) for row in series.rows]
    return Panel(f"series-{number}", series, history_text.outcome(series), spoken, bool(series.measured), table)


def _state(row: Row) -> tuple[str, str]:
    """(word, sign) of a run without a number."""
    return ("not planned", "·") if history_text.is_unplanned(row) else tables.STATES[row["status"]]


def _cells(row: Row) -> list[str]:
    """One run of a series: latency, interval, speedup, memory, error; a word and the reason where there is no number."""
    if not has_number(row):
        return []
    low, high = row["latency_low_s"], row["latency_high_s"]
    interval = "" if low is None or high is None else f"{units.quantity(low, 's')} – {units.quantity(high, 's')}"
    memory = units.quantity(row["peak_bytes"], "B")
    error = "" if row["error_max_ratio"] is None else units.digits(row["error_max_ratio"], 2)
    return [units.quantity(row["latency_s"], "s"), interval, units.times(row["speedup"]), memory, error]


def _change(panel: Panel, number: int) -> dict[str, Any]:
    """A row of the table of changes; `key` sorts the biggest first."""
    change = panel.series.changes[number]
    point = change.point
    return {
        "panel": panel,
        "key": -abs(point.change),
        "words": history_text.change(point.change),
        "slower": point.change > 0,
        "from": units.quantity(point.before_s, "s"),
        "to": units.quantity(point.after_s, "s"),
        "before": change.before,
        "after": change.after,
        "runs": f"{change.runs_before} + {change.runs_after}",
        "p_value": f"{point.p_value:.2g}",
        "strength": units.digits(point.strength, 2) + "×",
        "conditions": panel.series.case["conditions"],
    }


def _parts(history: History, panels: Sequence[Panel]) -> list[Part]:
    made = []
    for number, (found, name) in enumerate(history.conditions.items(), 1):
        own = [panel for panel in panels if panel.series.conditions == found]
        runs = history.runs_of(found)
        heading = f"Latency over runs: {name}" if name else "Latency over runs"
        takeaway = f"{units.count(len(own), 'series', 'series')} of {units.count(len(runs), 'run')} on {summary.machine(runs[-1])}. "
        takeaway += "Lower is better. Those with the largest changes stand first; the axes do not begin at 0."
        made.append(Part(f"trend-{number}", heading, takeaway, machine(runs[-1]), own[:MOST_DRAWN], own[MOST_DRAWN:]))
    return made


def _headings(history: History) -> list[tuple[str, str]]:
    several = [("conditions", "what differs")] * (len(history.conditions) > 1)
    own = [("runs", "with a number"), ("gaps", ""), ("level now", "median"), ("newest", ""), ("newest", "against level"), ("changes", "")]
    return [("kernel", ""), ("shape", ""), *several, *own, ("largest change", "")]


def _listed(series: Series, history: History) -> list[tuple[str, Any]]:
    """(text, sort key) of each cell of a series in the table of all."""
    level, newest = history_text.standing(series)
    apart = None if level is None or newest is None else newest / level - 1
    largest = max((change.point.change for change in series.changes), key=abs, default=None)
    return [
        (series.case["kernel"], series.case["kernel"]),
        (series.case["label"], series.case["label"]),
        *[(series.case["conditions"], series.case["conditions"])] * (len(history.conditions) > 1),
        (str(len(series.measured)), len(series.measured)),
        (str(len(series.gaps)), len(series.gaps)),
        (units.quantity(level, "s"), level),
        (units.quantity(newest, "s"), newest),
        ("" if apart is None else history_text.signed(apart), apart),
        ("too few runs" if series.is_short else str(len(series.changes)), None if series.is_short else len(series.changes)),
        ("" if largest is None else history_text.change(largest), largest),
    ]


def _run(history: History, number: int) -> dict[str, Any]:
    run = history.runs[number]
    found = conditions(run)
    usable = sum(measurement.status == "ok" for measurement in run.measurements.values())
    return {
        "created": run.manifest.created,
        "run": run.folder,
        "commit": run.manifest.environment.commit or "not known",
        "conditions": history.conditions[found] or "the same for all",
        "fingerprint": found.fingerprint,
        "cases": f"{usable} of {len(run.cases)}",
    }


def _options(own: Sequence[Row]) -> dict[str, list[str]]:
    """What the page can be filtered by, where there is more than one to choose from."""
    offered = {
        name: sorted({short(row["kernel"]) if name == "kernel" else row[name] for row in own}) for name in ("operator", "kernel", "dtype")
    }
    return {name: values for name, values in offered.items() if len(values) > 1}
