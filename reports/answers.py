"""Which kernel should I use? One sentence for the whole run, and one answer for each operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from . import units
from .figures import error_of
from .names import short
from .summary import FEW, OPERATORS, coverage

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
    tied: bool
    """Whether it is only one of the fastest wherever it is among them."""
    lines: list[str]


@dataclass(frozen=True)
class Standing:
    """Who was fastest how often among the exact kernels of one operator; what is too close to call is nobody's win."""

    leader: str
    wins: int
    """Shapes at which the leader is the fastest beyond noise."""
    tied: int
    """More shapes at which it is one of the two fastest, too close to call."""
    others: Counter[str]
    """Wins of other kernels."""
    between_others: int
    """Shapes at which two others are too close to call."""
    shapes: int
    """Shapes at which some exact kernel has a number."""
    without: int
    """Shapes at which none has."""


def standing(results: Sequence[Row], contests: Sequence[Row], operator: str) -> Standing | None:
    """Of one operator; None where no exact kernel has a number. Lengths that refining added are no contests."""
    exact = [contest for contest in contests if contest["operator"] == operator and contest["division"] == "exact"]
    if not exact:
        return None
    decided = Counter(contest["kernel"] for contest in exact if not contest["tie"])
    level = Counter(kernel for contest in exact if contest["tie"] for kernel in (contest["kernel"], contest["runner_up"]) if kernel)
    leader = max([*decided, *level], key=lambda kernel: (decided[kernel], level[kernel]))
    measured = {row["group"] for row in results if row["operator"] == operator and row["status"] == "ok" and not row["approximate"]}
    return Standing(
        leader=leader,
        wins=decided[leader],
        tied=level[leader],
        others=Counter({kernel: number for kernel, number in decided.items() if kernel != leader}),
        between_others=sum(contest["tie"] for contest in exact) - level[leader],
        shapes=len(exact),
        without=len({row["group"] for row in results if row["operator"] == operator} - measured),
    )


def headline(results: Sequence[Row], contests: Sequence[Row]) -> str:
    """What came out, in one sentence."""
    leading: dict[str, list[str]] = {}
    open_: list[str] = []
    for operator in dict.fromkeys(row["operator"] for row in results):
        name = OPERATORS.get(operator, operator).lower()
        if found := standing(results, contests, operator):
            if found.wins:
                leading.setdefault(short(found.leader), []).append(f"{name} ({found.wins} of {units.count(found.shapes, 'shape')})")
            else:
                open_.append(name)
    parts = [f"{kernel} for {units.listed(operators)}" for kernel, operators in leading.items()]
    said = [f"Fastest: {', '.join(parts)}"] * bool(parts) + [f"too close to call: {units.listed(open_)}"] * bool(open_)
    counted = {status: number for status, _, _, number in coverage(results)}
    broken = sum(counted.get(status, 0) for status in ("wrong", "failed", "timeout", "invalid"))
    trouble = [f"{units.count(broken, 'case')} without a valid result"] * bool(broken)
    trouble += [f"{counted[status]} {status}" for status in ("skipped", "missing") if status in counted]
    said.append(units.listed(trouble) if trouble else f"all {units.count(len(results), 'case')} measured")
    sentence = "; ".join(said if parts or open_ else ["No exact kernel has a number", *said])
    return f"{sentence[0].upper()}{sentence[1:]}."


def answers(results: Sequence[Row], contests: Sequence[Row]) -> list[Answer]:
    """One answer per operator."""
    made = []
    for operator in dict.fromkeys(row["operator"] for row in results):
        loose = [contest for contest in contests if contest["operator"] == operator and contest["division"] == "approximate"]
        name = OPERATORS.get(operator, operator)
        found = standing(results, contests, operator)
        if found is None:
            made.append(Answer(operator, name, None, False, ["no exact kernel has a number"]))
            continue
        own = [row for row in results if row["operator"] == operator and row["status"] == "ok"]
        lines = [_won(found), *_gain(found.leader, own), *_approximate(loose, own)]
        made.append(Answer(operator, name, found.leader, not found.wins, lines))
    return made


def _won(found: Standing) -> str:
    """Where the leader won, where not, and where nobody could."""
    shapes = units.count(found.shapes, "shape")
    if found.wins:
        said = f"fastest in {found.wins} of {shapes}" + f", level with another in {found.tied}" * bool(found.tied)
    else:
        said = f"one of the two fastest in {found.tied} of {shapes}, too close to call"
    if found.others:
        said += "; elsewhere " + ", ".join(f"{short(kernel)} {number}" for kernel, number in found.others.most_common(FEW))
        said += f" and {len(found.others) - FEW} more kernels" * (len(found.others) > FEW)
    said += f"; {found.between_others} more too close to call" * bool(found.between_others)
    return said + f"; {found.without} more without a number" * bool(found.without)


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
    kernel, number = Counter(contest["kernel"] for contest in loose).most_common(1)[0]
    off = f", off by up to {units.error(told[kernel][1])}" if kernel in told else ""
    return [f"approximate, ranked apart: {short(kernel)} first in {number} of {len(loose)}{off}"]
