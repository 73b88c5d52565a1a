"""The costs of several sizes as a table, for the terminal and as Markdown, and the limits in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.table import Table

from .costs import GIB, LIMITS, MB, SHOWN, Costs, Limit, exponent, missed

BUSY = 1.25
"""From so many times the processor time on, a step had to wait for something else."""
COMMAND = "python -P -m kerneldyno.reports.growth"


def table(measured: Sequence[Costs]) -> Table:
    """One row per cost, one column per size, and the exponents of growth between neighbouring sizes."""
    shown = Table(title="What reports cost, by the size of the run")
    for number, heading in enumerate(_headings(measured)):
        shown.add_column(heading, justify="right" if number else "left")
    for cells in _rows(measured):
        shown.add_row(*cells)
    return shown


def markdown(measured: Sequence[Costs], machine: str) -> str:
    """The same with the limits, as growth.md."""
    headings = _headings(measured)
    lines = [
        "# How reports grow with a run",
        "",
        f"Measured on {machine}, with made-up runs: `{COMMAND}`. The exponent is the power of the number of cases with which a cost "
        "grows between two sizes: 1 is in proportion.",
        "",
        f"| {' | '.join(headings)} |",
        f"|---|{'---:|' * (len(headings) - 1)}",
        *(f"| {' | '.join(cells)} |" for cells in _rows(measured)),
        "",
        *(f"- {line}" for line in [*verdicts(measured), *notes(measured)]),
    ]
    return "\n".join(lines) + "\n"


def verdicts(measured: Sequence[Costs]) -> list[str]:
    """A sentence for each limit that was missed, and what all limits are. That a machine was busy is said, and excuses nothing."""
    lines = [
        f"missed at {costs.cases:,} cases: {SHOWN[limit.cost]} {amount(limit.cost, getattr(costs, limit.cost))}, at most "
        f"{amount(limit.cost, limit.most)}"
        for costs, limit in missed(measured)
    ]
    return [*(lines or ["every limit was kept, as far as it was measured"]), f"limits: {'; '.join(map(_limit, LIMITS))}"]


def notes(measured: Sequence[Costs]) -> list[str]:
    """What was not measured, and why."""
    busy = [costs for costs in measured if costs.frame_s > BUSY * costs.frame_processor_s]
    told = [f"{costs.cases:,} cases: {note}" for costs in measured for note in costs.notes]
    return [*told, *([f"the machine did something else meanwhile ({', '.join(f'{one.cases:,}' for one in busy)} cases)"] if busy else [])]


def amount(cost: str, value: float | None) -> str:
    """A cost with its unit."""
    if value is None:
        return "–"
    if cost.endswith("_s"):
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    if cost.endswith("peak_bytes"):
        return f"{value / GIB * 1024:,.0f} MiB"
    return f"{value / MB:.2f} MB" if cost.endswith("_bytes") else f"{value:g}"


def _limit(limit: Limit) -> str:
    return f"{SHOWN[limit.cost]} at most {amount(limit.cost, limit.most)} up to {limit.cases:,} cases"


def _headings(measured: Sequence[Costs]) -> list[str]:
    return ["", *(f"{costs.cases:,} cases" for costs in measured), *(["exponents"] if len(measured) > 1 else [])]


def _rows(measured: Sequence[Costs]) -> list[list[str]]:
    found = []
    for cost, words in SHOWN.items():
        cells = [words, *(amount(cost, getattr(costs, cost)) for costs in measured)]
        powers = [exponent(small, large, cost) for small, large in pairwise(measured)]
        found.append([*cells, *([" · ".join("–" if power is None else f"{power:.2f}" for power in powers)] if powers else [])])
    return found
