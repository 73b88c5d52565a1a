"""What is recorded of a choice: the entry that kernels read, with its evidence, and the outcome that people are told. No torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerneldyno.kernels import _tuned
from kerneldyno.kernels._tuned import Entry, Evidence

from ..launch import Options
from ..manifest import Environment
from ..records import Measurement
from ..stats import Interval, latency
from .folder import Left, Outcome
from .goals import Asked, texts

if TYPE_CHECKING:
    from kerneldyno.kernels._cards import Card

    from .decide import Verdict
    from .goals import Goal

OPEN = 1e9
"""The upper end of an interval that has none."""
NOT_STORED = ("load", "out", "budget_s", "ceilings", "command", "protocol", "energy")


@dataclass(frozen=True)
class Measured:
    """What was measured of one goal, by what people call the candidates."""

    heat: Mapping[str, Measurement]
    checked: Mapping[str, Measurement]
    """Of the default and the finalists: what the whole gate said."""
    final: Mapping[str, Measurement]
    """Of the default and the finalists; the heat itself where there were none."""
    left: Left

    @property
    def rejected(self) -> dict[str, str]:
        """Candidates that could not be measured -> why."""
        return thrown_out({**self.heat, **self.checked, **self.final})


def thrown_out(measured: Mapping[str, Measurement]) -> dict[str, str]:
    """Those that are not ok -> why; the last words of one that crashed are in its journal."""
    return {name: _why(one) for name, one in measured.items() if one.status != "ok"}


def _why(one: Measurement) -> str:
    return f"{one.status}: {(one.reason or '').partition('; last words')[0]}"


def entry(goal: Goal, measured: Measured, verdict: Verdict, machine: Environment, card: Card, *, simulated: bool) -> Entry:
    """The choice with what it was measured with."""
    usual = measured.left.kept[0]
    name = verdict.winner or usual
    default, choice = (latency(measured.final[who].processes) for who in (usual, name))
    ratio = verdict.speedups[name] if verdict.winner else Interval(1.0, 1.0, 1.0)
    evidence = Evidence(
        gpu=machine.device_name,
        multiprocessors=card.multiprocessors,
        triton=machine.versions.get("triton", ""),
        torch=machine.versions.get("torch", ""),
        date=datetime.now(UTC).date().isoformat(),
        commit=machine.commit or "",
        problem=goal.problem.label,
        default=usual,
        default_s=rounded(default),
        choice_s=rounded(choice),
        speedup=rounded(ratio),
        required=verdict.required,
        contested=_contested(verdict),
        processes=len(measured.final[usual].processes),
        candidates=len(measured.left.kept) + len(measured.left.left_out),
        pruned=len(measured.left.left_out),
        wrong=len(measured.rejected),
        simulated=simulated,
    )
    return Entry(key=goal.key, choice=_tuned.stored(texts(goal)[name]), evidence=evidence)


def _contested(verdict: Verdict) -> str:
    others = {name: ratio for name, ratio in verdict.speedups.items() if name != verdict.winner}
    if not others:
        return "no candidate came close to the default in the heat" if verdict.winner is None else ""
    best = max(others, key=lambda name: others[name].estimate)
    return f"{best}: {told(others[best])}"


def outcome(goal: Goal, measured: Measured, verdict: Verdict, found: Entry) -> Outcome:
    """What came of a goal that was decided."""
    return Outcome(
        key=goal.key,
        kernel=goal.kernel.name,
        problem=goal.problem.label,
        entry=found,
        text=verdict.winner or measured.left.kept[0],
        rejected=measured.rejected,
        finalists={name: rounded(ratio) for name, ratio in verdict.speedups.items()},
    )


def failed(goal: Goal, default: Measurement, measured: Mapping[str, Measurement]) -> Outcome:
    """What came of a goal whose default could not be measured: there is nothing to compare with, and something to mend."""
    return Outcome(
        key=goal.key,
        kernel=goal.kernel.name,
        problem=goal.problem.label,
        entry=None,
        text=str(goal.task.default),
        rejected=thrown_out(measured),
        finalists={},
        reason=f"the default itself is {_why(default)}",
    )


def rounded(interval: Interval) -> tuple[float, float, float]:
    """An interval to six digits, for files that people read. What is open ends at 0 and at OPEN: JSON has no infinity."""
    low, high = (value if math.isfinite(value) else end for value, end in ((interval.low, 0.0), (interval.high, OPEN)))
    estimate, low, high = (float(f"{value:.6g}") for value in (interval.estimate, low, min(high, OPEN)))
    return estimate, low, high


def told(ratio: Interval) -> str:
    """ "1.23 (1.20 to 1.26)"."""
    return f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def options(asked: Asked) -> dict[str, Any]:
    """What was asked as plain values, without paths."""
    plain = {item.name: getattr(asked.run, item.name) for item in dataclasses.fields(asked.run) if item.name not in NOT_STORED}
    return {
        **plain,
        "axes": {name: list(values) for name, values in asked.run.axes.items()},
        "arch": asked.arch,
        "simulated": asked.simulated,
    }


def asked_again(stored: Mapping[str, Any], load: tuple[Path, ...], budget_s: float | None, book: Path | None, folder: Path) -> Asked:
    """What was asked, with what may be given anew."""
    plain: dict[str, Any] = {name: value for name, value in stored.items() if name not in ("arch", "simulated")}
    plain |= {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
    run = Options(**plain, protocol="default", energy="off", load=load, budget_s=budget_s)
    return Asked(run, arch=stored["arch"], simulated=stored["simulated"], book=book, folder=folder, resumed=True)
