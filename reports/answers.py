"""Which kernel should I use? One sentence for the whole run, and one answer for each operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from . import units
from .figures import error_of
from .summary import FEW, OPERATORS, coverage, short

Row = Mapping[str, Any]

SMALL_ERROR = 0.1
"""An approximation within this relative error at every shape may be named beside the exact winner."""


@dataclass(frozen=True)
class Answer:
    """What came out for one operator."""

    operator: str
    name: str
    winner: str | None
    """The kernel that was fastest most often."""
    lines: list[str]


def headline(results: Sequence[Row], contests: Sequence[Row]) -> str:
    """What came out, in one sentence."""
    leading: dict[str, list[str]] = {}
    for operator in dict.fromkeys(row["operator"] for row in results):
        exact = _contests(contests, operator, "exact")
        if exact:
            kernel, wins = _leader(exact)
            name = OPERATORS.get(operator, operator).lower()
            leading.setdefault(short(kernel), []).append(f"{name} ({wins} of {_shapes(results, operator)})")
    parts = [f"{kernel} for {units.listed(operators)}" for kernel, operators in leading.items()]
    counted = {status: number for status, _, _, number in coverage(results)}
    broken = sum(counted.get(status, 0) for status in ("wrong", "failed", "timeout", "invalid"))
    trouble = [f"{units.count(broken, 'case')} without a valid result"] * bool(broken)
    trouble += [f"{counted[status]} {status}" for status in ("skipped", "missing") if status in counted]
    tail = f"; {units.listed(trouble)}" if trouble else f"; all {units.count(len(results), 'case')} measured"
    return (f"Fastest: {', '.join(parts)}" if parts else "No exact kernel has a number") + tail + "."


def answers(results: Sequence[Row], contests: Sequence[Row]) -> list[Answer]:
    """One answer per operator."""
    made = []
    for operator in dict.fromkeys(row["operator"] for row in results):
        exact, loose = _contests(contests, operator, "exact"), _contests(contests, operator, "approximate")
        name = OPERATORS.get(operator, operator)
        if not exact:
            made.append(Answer(operator, name, None, ["no exact kernel has a number"]))
            continue
        winner, wins = _leader(exact)
        own = [row for row in results if row["operator"] == operator and row["status"] == "ok"]
        ties = sum(contest["tie"] for contest in exact if contest["kernel"] == winner)
        first = f"fastest in {wins} of {_shapes(results, operator)}" + (f", {ties} too close to call" if ties else "")
        others = Counter(contest["kernel"] for contest in exact if contest["kernel"] != winner)
        if others:
            first += "; elsewhere " + ", ".join(f"{short(kernel)} {number}" for kernel, number in others.most_common(FEW))
            first += f" and {len(others) - FEW} more kernels" * (len(others) > FEW)
        made.append(Answer(operator, name, winner, [first, *_gain(winner, own), *_approximate(loose, own)]))
    return made


def _gain(kernel: str, own: Sequence[Row]) -> list[str]:
    """How much faster than its baseline a kernel is over all its shapes; nothing for the baseline itself."""
    rows = [row for row in own if row["kernel"] == kernel and row["speedup"] and row["kernel"] != row["baseline"]]
    if not rows:
        return []
    speedups = sorted(row["speedup"] for row in rows)
    bases = units.listed(sorted({short(row["baseline"]) for row in rows}))
    if len(rows) == 1:
        return [f"{units.times(speedups[0])} the speed of {bases}"]
    return [f"{units.times(median(speedups))} the speed of {bases} (median; {units.times(speedups[0])} to {units.times(speedups[-1])})"]


def _approximate(loose: Sequence[Row], own: Sequence[Row]) -> list[str]:
    """What can be had where an error may be made: the fastest within SMALL_ERROR, or the one most often first, with its error."""
    told: dict[str, tuple[float, float]] = {}
    for kernel in dict.fromkeys(row["kernel"] for row in own if row["approximate"]):
        rows = [row for row in own if row["kernel"] == kernel and row["speedup"] and error_of(row) is not None]
        if rows:
            told[kernel] = median(sorted(row["speedup"] for row in rows)), max(error_of(row) or 0.0 for row in rows)
    close = {kernel: speed for kernel, (speed, error) in told.items() if error <= SMALL_ERROR}
    if close and max(close.values()) > 1:
        best = max(close, key=lambda kernel: close[kernel])
        speed, error = told[best]
        return [f"approximate, ranked apart: {short(best)} {units.times(speed)}, off by {units.error(error)}"]
    if not loose:
        return []
    kernel, number = _leader(loose)
    off = f", off by up to {units.error(told[kernel][1])}" if kernel in told else ""
    return [f"approximate, ranked apart: {short(kernel)} first in {number} of {len(loose)}{off}"]


def _shapes(results: Sequence[Row], operator: str) -> str:
    return units.count(len({row["group"] for row in results if row["operator"] == operator}), "shape")


def _contests(contests: Sequence[Row], operator: str, division: str) -> list[Row]:
    return [contest for contest in contests if contest["operator"] == operator and contest["division"] == division]


def _leader(contests: Sequence[Row]) -> tuple[str, int]:
    return Counter(contest["kernel"] for contest in contests).most_common(1)[0]
