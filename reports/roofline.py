"""The roofline: the rate of each kernel at each shape, below what the machine was measured to do at that arithmetic intensity.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52 (4), 2009.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import units
from .figures import Figure, Quantity, Results, Row, axis_of, figure_of, log_ticks, looks_of, rows_of, scale_of, trace_of
from .names import marked, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kerneldyno.bench.records import Ceilings

    from .styles import Style
    from .tables import Text

RATE = Quantity("rate", "rate", "FLOP/s", "higher")
READABLE = 400
"""With more points than these only the leaders of each shape are drawn …"""
LEADERS = 3
"""… so many exact kernels, and one approximate one."""
ABOVE = 1.005
"""A share of the limit that is told as more than 100 %."""
NAMES = 0.22
"""How much higher the axis is, on its logarithmic scale, so that the names of the roof have room."""
TOP_LEFT = {
    "xref": "paper", "yref": "paper", "x": 0.01, "y": 1, "xanchor": "left", "yanchor": "top", "align": "left", "showarrow": False,
    "font": {"size": 11},
}  # fmt: skip
ROOF = {"light": "#6f6f6f", "dark": "#9c9c9c"}
HEADINGS = [
    ("kernel", "", False), ("shape", "", False), ("intensity", "FLOP/B", True), ("rate", "higher is better", True),
    ("limit", "at that intensity", True), ("share of limit", "", True), ("bound by", "", False),
]  # fmt: skip
"""Of the table that says the same: heading, its second line, whether it is a number."""


@dataclass(frozen=True)
class Point:
    """One kernel at one shape."""

    row: Row
    intensity: float
    """Floating-point operations per byte that the exact problem at least moves."""
    rate: float
    """Operations of the exact problem per second, reached."""
    limit: float
    """Operations per second that the machine could reach at this intensity."""
    bound: str
    """What limits it: memory or compute."""

    @property
    def name(self) -> str:
        """Of the kernel, without its operator."""
        return short(self.row["kernel"])

    @property
    def share(self) -> float:
        """Of the limit."""
        return self.rate / self.limit


def points(results: Results, ceilings: Ceilings | None) -> list[Point]:
    """Of rows of one operator and dtype those that have a rate, where the machine's own rates were measured."""
    rows = _measured(results)
    peak = _peak(rows, ceilings)
    if ceilings is None or not peak:
        return []
    found = []
    for row in rows:
        intensity = row["flops"] / row["min_bytes"]
        memory = intensity * ceilings.copy_bytes_per_s
        rate = row["flops"] / row["latency_s"]
        found.append(Point(row, intensity, rate, min(peak, memory), "memory" if memory < peak else "compute"))
    return found


def roofline(results: Results, ceilings: Ceilings | None, looks: Mapping[str, Style] | None = None) -> Figure | None:
    """Rate against arithmetic intensity, both logarithmic, under the machine's roof; None where there is no roof or nothing below it.

    `results`: rows of one operator and dtype, of any shapes. Points above the roof are drawn where they are.
    """
    found = points(results, ceilings)
    peak = _peak([point.row for point in found], ceilings)
    if not found or ceilings is None or not peak:
        return None
    looks = looks or looks_of(results)
    drawn = _drawn(found)
    rows = [_rated(point) for point in drawn]
    divisor, unit = scale_of(rows, RATE)
    copy, ridge = ceilings.copy_bytes_per_s, peak / ceilings.copy_bytes_per_s
    left, right = min(ridge, *(point.intensity for point in drawn)) / 2, max(ridge, *(point.intensity for point in drawn)) * 2
    low = min(left * copy, *(point.rate for point in drawn)) / 1.5
    high = max(peak, *(point.rate for point in drawn))
    high *= (high / low) ** NAMES
    traces = _roof(copy, peak, (left, ridge, right), divisor)
    traces += _markers(drawn, looks, divisor)
    across = {"type": "log", "title": {"text": "arithmetic intensity, FLOP/B"}} | _scaled(left, right)
    up = axis_of(rows, RATE, divisor, unit) | _scaled(low / divisor, high / divisor)
    made = figure_of(traces, across, up)
    text = f"— matmul {units.quantity(peak, 'FLOP/s')}<br>- - copy {units.quantity(copy, 'B/s')}"
    made["layout"]["annotations"] = [TOP_LEFT | {"text": text}]  # above the memory's slope, where hardly anything can be
    return made


def takeaway(results: Results, ceilings: Ceilings | None) -> str:
    """What bounds the shapes, which exact kernel comes closest to its limit and how close, and what the figure leaves out."""
    found = points(results, ceilings)
    if not found or ceilings is None:
        return _nothing(results, ceilings)
    bounds = Counter({point.row["group"]: point.bound for point in found}.values())
    shapes = bounds.total()
    if len(bounds) == 1:
        said = [f"{_every(shapes)} bound by {next(iter(bounds))}."]
    else:
        said = [f"Of {shapes} shapes {bounds['memory']} {_are(bounds['memory'])} bound by memory, {bounds['compute']} by compute."]
    exact = [point for point in found if not point.row["approximate"]]
    if exact:
        best = max(exact, key=lambda point: point.share)
        reached = f"{units.quantity(best.share, 'share')} at {best.row['label']}"
        above = best.share > ABOVE
        said.append(f"{best.name} {'goes farthest beyond the limit' if above else 'comes closest to the limit'}: {reached}.")
    said += _beyond([point for point in found if point.share > ABOVE])
    if left_out := len(found) - len(_drawn(found)):
        leaders = f"the {LEADERS} fastest exact kernels and the fastest approximation"
        said.append(f"Drawn of each shape are {leaders}; {left_out} more stand in the table.")
    return " ".join(said)


def rows(results: Results, ceilings: Ceilings | None) -> list[tuple[Row, list[Text]]]:
    """The points as rows of a table under HEADINGS, the largest share of the limit first."""
    return [
        (
            point.row,
            [
                (marked(point.row["kernel"], point.row["approximate"]), point.row["case"]),
                point.row["label"],
                units.digits(point.intensity),
                units.quantity(point.rate, "FLOP/s"),
                units.quantity(point.limit, "FLOP/s"),
                units.quantity(point.share, "share"),
                point.bound,
            ],
        )
        for point in sorted(points(results, ceilings), key=lambda point: -point.share)
    ]


def _measured(results: Results) -> list[Row]:
    return [row for row in rows_of(results) if row["status"] == "ok" and row["latency_s"] and row["flops"] and row["min_bytes"]]


def _peak(rows: Sequence[Row], ceilings: Ceilings | None) -> float | None:
    return ceilings.matmul_rate(rows[0]["dtype"]) if rows and ceilings is not None and ceilings.copy_bytes_per_s > 0 else None


def _drawn(found: Sequence[Point]) -> list[Point]:
    """All points, or of too many those of each shape's leaders, in the same order."""
    if len(found) <= READABLE:
        return list(found)
    groups: dict[str, list[int]] = {}
    for number, point in enumerate(found):
        groups.setdefault(point.row["group"], []).append(number)
    kept: set[int] = set()
    for numbers in groups.values():
        fastest = sorted(numbers, key=lambda number: -found[number].rate)
        kept.update([number for number in fastest if not found[number].row["approximate"]][:LEADERS])
        kept.update([number for number in fastest if found[number].row["approximate"]][:1])
    return [point for number, point in enumerate(found) if number in kept]


def _roof(copy: float, peak: float, at: tuple[float, float, float], divisor: float) -> list[dict[str, Any]]:
    """The memory's slope and the matrix products' flat roof, which meet at the ridge."""
    left, ridge, right = at
    slope = ("memory", "dash", [left, ridge], [left * copy, peak], f"copy {units.quantity(copy, 'B/s')}")
    flat = ("compute", "solid", [ridge, right], [peak, peak], f"matmul {units.quantity(peak, 'FLOP/s')}")
    return [
        {
            "x": x,
            "y": [value / divisor for value in y],
            "text": [f"limit by {bound}: {rate},<br>measured at the start of this run"] * 2,
            "hovertemplate": "%{text}<extra></extra>",
            "mode": "lines",
            "name": f"limit by {bound}: {rate}",
            "line": {"width": 1.5, "color": ROOF["light"], "dash": dash},
            "meta": dict(ROOF),
            "type": "scatter",
        }
        for bound, dash, x, y, rate in (slope, flat)
    ]


def _markers(drawn: Sequence[Point], looks: Mapping[str, Style], divisor: float) -> list[dict[str, Any]]:
    """One trace for each kernel."""
    made = []
    for kernel in dict.fromkeys(point.row["kernel"] for point in drawn):
        own = [point for point in drawn if point.row["kernel"] == kernel]
        trace = trace_of(kernel, [_rated(point) for point in own], looks[kernel], RATE)
        trace["text"] = [f"{text}<br>{_hover(point)}" for text, point in zip(trace["text"], own, strict=True)]
        where = {"x": [point.intensity for point in own], "y": [point.rate / divisor for point in own]}
        made.append(trace | where | {"mode": "markers"})
    return made


def _rated(point: Point) -> Row:
    """Its row, with the rate as a column that can be drawn."""
    return {**point.row, RATE.column: point.rate}


def _scaled(low: float, high: float) -> dict[str, Any]:
    """What a logarithmic axis from low to high looks like."""
    ticks = [tick for tick in log_ticks(low, high) if low <= tick <= high]
    texts = [f"{tick:g}" if tick < 1e6 else f"{tick:.0e}" for tick in ticks]
    return {"range": [math.log10(low), math.log10(high)], "tickvals": ticks, "ticktext": texts}


def _hover(point: Point) -> str:
    share, limit = units.quantity(point.share, "share"), units.quantity(point.limit, "FLOP/s")
    return html.escape(f"{share} of {limit}, bound by {point.bound}, at {units.digits(point.intensity)} FLOP/B")


def _beyond(above: Sequence[Point]) -> list[str]:
    """Why points may lie above the roof, where any do."""
    if not above:
        return []
    loose = sum(bool(point.row["approximate"]) for point in above)
    number, lie = units.count(len(above), "point"), "lies" if len(above) == 1 else "lie"
    if loose == len(above):
        return [f"{number} of approximations {lie} above the roof, which is that of the exact work."]
    among = f" ({loose} of approximations, which do less work)" if loose else ""
    return [f"{number}{among} {lie} above the roof, which was measured with torch's matrix products and copies larger than the caches."]


def _nothing(results: Results, ceilings: Ceilings | None) -> str:
    """Why there is no roofline, in a sentence."""
    measured = _measured(results)
    if not measured:
        return "Nothing was measured here."
    if ceilings is None:
        return "What this machine can do was not measured in this run: there is no roof to draw."
    return f"The rate of matrix products in {measured[0]['dtype']} was not measured in this run: there is no roof to draw."


def _every(shapes: int) -> str:
    return "The only shape is" if shapes == 1 else f"All {shapes} shapes are"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
