"""What the cross-check comes to: agreement with the peers, and how far repetitions of each tool are apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from ..stats import geometric_mean
from . import own
from .race import Figure

AGREEMENT = 0.02
"""A case agrees when kerneldyno's figure is within this share of the median of the peers' figures."""
MOST_OF_MEDIAN = 1.0
"""Goal: kerneldyno's spread divided by that of the median peer."""
MOST_OF_BEST = 1.25
"""Goal: kerneldyno's spread divided by that of the best peer."""
LEAST_SPREAD = 1e-5
"""Repetitions that are closer count as this close: a geometric mean knows no zero."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case."""

    case: str
    seconds: dict[str, float]
    """Tool -> median of its repetitions."""
    spread: dict[str, float]
    """Tool -> spread of its repetitions."""
    ratio: float | None
    """kerneldyno's figure divided by the median of the peers'; None without peers."""
    of_truth: float | None = None
    """kerneldyno's figure divided by the time that the call really takes, where that is known."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All cases."""

    rows: list[Row]
    agreeing: int
    """Cases within AGREEMENT of the median of the peers …"""
    compared: int
    """… out of so many that peers measured too."""
    spread: dict[str, float]
    """Tool -> geometric mean of its spreads, over the kernels that all tools measured; a busy-wait is none."""
    wall_s: dict[str, float]
    """Tool -> median seconds that one measurement took."""
    of_median: float | None
    """kerneldyno's spread divided by the median of the peers'; None where there is nothing to compare."""
    of_best: float | None
    """The same for the peer with the smallest spread."""

    @property
    def missed(self) -> list[str]:
        """The goals that were not reached, each in a sentence."""
        if not self.compared:
            return ["no peer measured anything: nothing was checked"]
        found = []
        if self.agreeing < self.compared:
            found.append(f"{self.compared - self.agreeing} of {self.compared} cases are beyond {AGREEMENT:.0%} of the peers' median")
        if self.of_median is None or self.of_best is None:
            return [*found, "no kernel was measured by all tools: spreads were not compared"]
        if self.of_median > MOST_OF_MEDIAN:
            found.append(f"the spread is {self.of_median:.2f} x that of the median peer (goal: {MOST_OF_MEDIAN:.2f})")
        if self.of_best > MOST_OF_BEST:
            found.append(f"the spread is {self.of_best:.2f} x that of the best peer (goal: {MOST_OF_BEST:.2f})")
        return found


def spread(seconds: Sequence[float]) -> float:
    """The 90th percentile less the 10th, divided by the median: of ten repetitions all but the two outermost."""
    low, middle, high = np.percentile(seconds, [10, 50, 90])
    return float((high - low) / middle)


def summarize(figures: Sequence[Figure], truths: Mapping[str, float]) -> Summary:
    """The summary of a race; `truths` are the cases whose seconds are known."""
    taken: dict[str, dict[str, list[float]]] = {}
    walls: dict[str, list[float]] = {}
    for figure in figures:
        taken.setdefault(figure.case, {}).setdefault(figure.tool, []).append(figure.seconds)
        walls.setdefault(figure.tool, []).append(figure.wall_s)
    rows = [_row(case, by_tool, truths.get(case)) for case, by_tool in taken.items()]
    complete = [row for row in rows if row.spread.keys() == walls.keys() and row.case not in truths]
    spreads = {tool: geometric_mean(max(row.spread[tool], LEAST_SPREAD) for row in complete) for tool in walls if complete}
    peers = [value for tool, value in spreads.items() if tool != own.NAME]
    mine = spreads.get(own.NAME)
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return Summary(
        rows=rows,
        agreeing=sum(abs(ratio - 1) <= AGREEMENT for ratio in ratios),
        compared=len(ratios),
        spread=spreads,
        wall_s={tool: statistics.median(values) for tool, values in walls.items()},
        of_median=mine / statistics.median(peers) if mine and peers else None,
        of_best=mine / min(peers) if mine and peers else None,
    )


def _row(case: str, by_tool: Mapping[str, Sequence[float]], true_s: float | None) -> Row:
    seconds = {tool: statistics.median(values) for tool, values in by_tool.items()}
    peers = [value for tool, value in seconds.items() if tool != own.NAME]
    mine = seconds.get(own.NAME)
    return Row(
        case=case,
        seconds=seconds,
        spread={tool: spread(values) for tool, values in by_tool.items()},
        ratio=mine / statistics.median(peers) if mine and peers else None,
        of_truth=mine / true_s if mine and true_s else None,
    )


def lines(summary: Summary, absent: Mapping[str, str]) -> list[str]:
    """The tables and the verdict, for people."""
    tools = [own.NAME, *sorted(summary.spread.keys() - {own.NAME})]
    width = max((len(row.case) for row in summary.rows), default=4)
    head = f"{'case':<{width}}" + "".join(f"  {tool:>22}" for tool in tools) + "   ratio"
    told = [head, f"{'':<{width}}" + f"  {'ms per call ± spread':>22}" * len(tools) + "   to peers", ""]
    for row in summary.rows:
        cells = "".join(f"  {_cell(row, tool):>22}" for tool in tools)
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}" + ("" if abs(row.ratio - 1) <= AGREEMENT else " <--")
        truth = "" if row.of_truth is None else f"   {row.of_truth:.4f} of the true time"
        told.append(f"{row.case:<{width}}{cells}   {ratio}{truth}")
    told += ["", f"within {AGREEMENT:.0%} of the peers' median: {summary.agreeing} of {summary.compared} cases"]
    told += [
        f"spread of {tool}: {summary.spread[tool]:.2%} ({summary.wall_s[tool]:.2f} s a measurement)"
        for tool in tools
        if tool in summary.spread
    ]
    if summary.of_median is not None and summary.of_best is not None:
        told.append(f"kerneldyno's spread is {summary.of_median:.2f} x the median peer's and {summary.of_best:.2f} x the best peer's")
    told += [f"{tool} says nothing: {reason}" for tool, reason in sorted(absent.items())]
    return told + [f"missed: {sentence}" for sentence in summary.missed]


def _cell(row: Row, tool: str) -> str:
    return f"{row.seconds[tool] * 1e3:.4f} ± {row.spread[tool]:.2%}" if tool in row.seconds else "-"
