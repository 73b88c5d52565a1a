"""Sentences of the history page: what was read, what changed, what must be known before it is believed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from . import change_points, units
from .history import NOT_PLANNED
from .summary import OPERATORS, date, machine

if TYPE_CHECKING:
    from .history import History, Row, Series

FALSE_ALARMS = "0.8 %"
"""Of simulated series without a change, at a noise of 2 % between runs: see `change_points`."""


def subject(history: History) -> str:
    """What was read, measured where and when."""
    first, last = (date(run) for run in (history.runs[0], history.runs[-1]))
    when = f"on {first}" if first == last else f"from {first} to {last}"
    kernels = len({row["kernel"] for row in history.rows})
    shapes = len({row["group"] for row in history.rows})
    operators = units.listed(OPERATORS.get(name, name).lower() for name in dict.fromkeys(row["operator"] for row in history.rows))
    where = units.listed(dict.fromkeys(machine(run) for run in history.runs))
    several = len(history.conditions)
    apart = f" under {several} conditions that are not joined" if several > 1 else ""
    return (
        f"{units.count(len(history.runs), 'run')} {when}{apart}: {units.count(kernels, 'kernel')} on {units.count(shapes, 'shape')} of "
        f"{operators}, measured on {where}."
    )


def headline(history: History) -> str:
    """What came out, in one sentence, the biggest change first."""
    long = [series for series in history.series if not series.is_short]
    if not long:
        most = max(len(series.measured) for series in history.series)
        return (
            f"Too few runs to look for changes: of {units.count(len(history.series), 'series', 'series')} the longest has "
            f"{units.count(most, 'number')}, and {change_points.MIN_RUNS} are needed."
        )
    aside = len(history.series) - len(long)
    rest = f"; {aside} more are too short to say" if aside else ""
    changes = history.changes
    if not changes:
        return f"No change of level in {units.count(len(long), 'series', 'series')}{rest}."
    series, biggest = changes[0]
    more = f"; {units.count(len(changes) - 1, 'other change')}" if len(changes) > 1 else ""
    return (
        f"{series.case['kernel']} became {_percent(biggest.point.change)} {_direction(biggest.point.change)} at {series.case['label']} "
        f"between {_named(biggest.before)} and {_named(biggest.after)}{more}. "
        f"{units.count(len(long), 'series', 'series')} looked at{rest}."
    )


def notes(history: History) -> list[str]:
    """What holds for the page as a whole."""
    said = [
        "a trend is no verdict, since a machine drifts from day to day: whether a commit made a kernel slower is measured with both "
        "sides in one process, by `kerneldyno compare`"
    ]
    if len(history.conditions) > 1:
        names = "; ".join(name for name in history.conditions.values())
        said.append(f"runs under different conditions are never joined; each kind has series of its own: {names}")
    if short := sum(series.is_short for series in history.series):
        said.append(
            f"{units.count(short, 'series', 'series')} with fewer than {change_points.MIN_RUNS} numbers: too few to look for changes"
        )
    dirty = sum((run.manifest.environment.commit or "").endswith("-dirty") for run in history.runs)
    if dirty:
        said.append(f"{units.count(dirty, 'run')} of a changed worktree (-dirty): the commit named is not what was measured")
    return [*said, *(f"left out: {folder.said}" for folder in history.left_out)]


def outcome(series: Series) -> str:
    """One series in a sentence or two."""
    parts = [
        f"{change(found.point.change)} since {_named(found.after)}: {units.quantity(found.point.before_s, 's')} → "
        f"{units.quantity(found.point.after_s, 's')}"
        for found in sorted(series.changes, key=lambda found: -abs(found.point.change))
    ]
    level, newest = standing(series)
    if level is None or newest is None:
        parts = ["no run has a number"]
    elif series.is_short:
        numbers = units.count(len(series.measured), "number")
        parts = [f"{numbers}, too few to look for changes ({change_points.MIN_RUNS} are needed); newest {units.quantity(newest, 's')}"]
    elif not parts:
        parts = [
            f"no change: {units.quantity(level, 's')} over {units.count(len(series.measured), 'run')}; newest {signed(newest / level - 1)}"
        ]
    gaps = Counter("not part of the run" if is_unplanned(row) else row["status"] for row in series.gaps)
    parts += [f"without a number: {', '.join(f'{number} {why}' for why, number in gaps.most_common())}"] * bool(gaps)
    return "; ".join(parts) + "."


def standing(series: Series) -> tuple[float | None, float | None]:
    """(median of the newest level, newest latency) in seconds."""
    latencies = [row["latency_s"] for row in series.measured]
    if not latencies:
        return None, None
    return change_points.levels(latencies, [found.point for found in series.changes])[-1][2], latencies[-1]


def is_unplanned(row: Row) -> bool:
    """Whether the run never meant to measure the case."""
    return bool(row["status"] == "missing" and row["reason"] == NOT_PLANNED)


def change(fraction: float) -> str:
    """`0.1` -> `▲ 10.0 % slower`."""
    return f"{'▲' if fraction > 0 else '▼'} {_percent(fraction)} {_direction(fraction)}"


def signed(fraction: float) -> str:
    """`0.012` -> `+1.2 %`."""
    text = f"{fraction * 100:+.1f} %"
    return "±0.0 %" if text in {"+0.0 %", "-0.0 %"} else text


def method() -> list[tuple[str, str]]:
    """(name, explanation) of how the page came about."""
    return [
        (
            "series",
            "one kernel at one problem, over the runs whose machine, software (fingerprint) and protocol are the same, oldest first",
        ),
        ("latency", "each run's median seconds per call, as in its own report; bars are its 95 % interval, which is blind to the day"),
        (
            "changes",
            "the latencies' logarithms are cut into levels by kernel change-point detection (ruptures; Arlot, Celisse and Harchaoui "
            f"2019), each at least {change_points.MIN_LEVEL_RUNS} runs long. A cut counts when the medians differ by more than "
            f"{change_points.MARGIN:.0%} and ranks as orderly as these come up in at most {change_points.ALPHA:.0%} of shuffled ones "
            "(Pettitt's test for an unknown place; the chance in the table)",
        ),
        (
            "how often it errs",
            f"of simulated series of 30 steady runs with 2 % noise, {FALSE_ALARMS} show a false change; 99.9 % of steps of 10 % are found "
            "at most one run off. Machines with good and bad days bring more false ones",
        ),
        ("× noise", "the change divided by the spread of single runs around their level"),
        (
            "newest runs",
            f"a change in the last {change_points.MIN_LEVEL_RUNS - 1} runs is not called one yet: see how far the newest is from its level",
        ),
        ("gaps", "a case that was wrong, failed, was skipped or not part of a run has no point there, and its reason is in the table"),
    ]


def _percent(fraction: float) -> str:
    return f"{abs(fraction) * 100:.1f} %"


def _direction(fraction: float) -> str:
    return "slower" if fraction > 0 else "faster"


def _named(row: Row) -> str:
    return f"run {row['run']}" + (f" (commit {row['commit']})" if row["commit"] else "")
