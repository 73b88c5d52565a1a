"""Figures of results as plain data that plotly draws: `plotly.graph_objects.Figure(panel(…))` in a notebook, or the page.

What a page adds (theme, its own legend, drawing when seen) is not here.
Every name that may come from a user's file is escaped, since plotly renders pseudo-HTML in labels and hover texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from . import units
from .frame import rows
from .names import label, short
from .styles import Style, styles

Row = Mapping[str, Any]
Figure = dict[str, Any]
"""`data` and `layout`."""
Results = pd.DataFrame | Sequence[Row]
"""`frame.results`, or some of its rows."""


@dataclass(frozen=True)
class Quantity:
    """A column of the results that can be drawn, and how."""

    column: str
    title: str
    unit: str
    better: str
    low: str | None = None
    high: str | None = None
    log: bool = True


QUANTITIES = {
    "latency": Quantity("latency_s", "latency", "s", "lower", "latency_low_s", "latency_high_s"),
    "share": Quantity("share_of_limit", "share of limit", "share", "higher", log=False),
    "memory": Quantity("peak_bytes", "peak memory", "B", "lower"),
    "energy": Quantity("energy_j", "energy", "J", "lower"),
    "power": Quantity("power_w", "power", "W", "lower", log=False),
}


def drawable(frame: Results, quantity: Quantity) -> list[Row]:
    """The rows that have this number: measured, to be believed, and not zero where the axis is logarithmic."""
    present = [
        row for row in rows_of(frame) if row["status"] == "ok" and row[quantity.column] is not None and believed(row, quantity.column)
    ]
    return [row for row in present if row[quantity.column] > 0 or not quantity.log]


def believed(row: Row, column: str) -> bool:
    """False for joules whose windows are not valid: these stand in tables only, with their reason."""
    return column != "energy_j" or row["energy_valid"] is not False


def panel(frame: Results, quantity: Quantity, looks: Mapping[str, Style] | None = None) -> Figure:
    """Lines over sequence length where there are several lengths, one dot per kernel otherwise."""
    several = len({row["seq_len"] for row in drawable(frame, quantity)}) > 1
    return against_length(frame, quantity, looks) if several else dots(frame, quantity, looks)


def against_length(frame: Results, quantity: Quantity, looks: Mapping[str, Style] | None = None) -> Figure:
    """A quantity against sequence length, one line per kernel: the rows of one operator, batch and variant."""
    drawn = drawable(frame, quantity)
    looks = looks or looks_of(frame)
    divisor, unit = scale_of(drawn, quantity)
    traces = []
    for kernel in dict.fromkeys(row["kernel"] for row in drawn):
        own = sorted((row for row in drawn if row["kernel"] == kernel), key=lambda row: row["seq_len"])
        points = {
            "x": [row["seq_len"] for row in own],
            "y": [row[quantity.column] / divisor for row in own],
            "error_y": _whiskers(own, quantity, divisor),
            "mode": "lines+markers",
        }
        traces.append(trace_of(kernel, own, looks[kernel], quantity) | points)
    lengths = sorted({row["seq_len"] for row in drawn})
    across = {"type": "log", "title": {"text": "sequence length, tokens"}} | _ticks(_thinned(lengths))
    return figure_of(traces, across, axis_of(drawn, quantity, divisor, unit))


def dots(frame: Results, quantity: Quantity, looks: Mapping[str, Style] | None = None) -> Figure:
    """A quantity of each kernel at one shape, best on top."""
    best_last = sorted(drawable(frame, quantity), key=lambda row: row[quantity.column], reverse=quantity.better == "lower")
    looks = looks or looks_of(frame)
    divisor, unit = scale_of(best_last, quantity)
    names = [row["kernel"] for row in best_last]
    kernels = {"type": "category", "automargin": True, "tickvals": names, "ticktext": [label(name) for name in names]}
    traces = []
    for row in best_last:
        point = {
            "x": [row[quantity.column] / divisor],
            "y": [row["kernel"]],
            "error_x": _whiskers([row], quantity, divisor),
            "mode": "markers+text",
            "textposition": "middle right",
            "textfont": {"size": 10},
            "cliponaxis": False,
        }
        trace = trace_of(row["kernel"], [row], looks[row["kernel"]], quantity)
        named = {"hovertext": trace["text"], "hovertemplate": "%{hovertext}<extra></extra>"}
        traces.append(trace | point | named | {"text": [f"  {units.quantity(row[quantity.column], quantity.unit)}"]})
    made = figure_of(traces, axis_of(best_last, quantity, divisor, unit), kernels)
    made["layout"]["margin"] |= {"r": 64}  # for the number beside the last dot
    return made


def error_of(row: Row) -> float | None:
    """How far a kernel's output is from the exact result: relative root-mean-square, for exact and approximate kernels alike."""
    value = row["distance_rms"] if row["approximate"] else row["error_relative_rms"]
    return None if value is None else float(value)


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other point beats or equals in both coordinates (lower is better), from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def looks_of(frame: Results) -> dict[str, Style]:
    """A Style for each kernel in these results."""
    return styles([(row["kernel"], row["family"], bool(row["approximate"])) for row in rows_of(frame)])


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover a range: so few that their labels do not touch, and as many as that allows."""
    if not 0 < low <= high < math.inf:
        return []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        inside = [tick for tick in ticks if low / 1.6 <= tick <= high * 1.6]
        if len(inside) <= 7:
            return inside
    return inside[:: math.ceil(len(inside) / 7)]


def rows_of(frame: Results) -> Sequence[Row]:
    """The rows of results, whichever way they are given."""
    return rows(frame) if isinstance(frame, pd.DataFrame) else frame


def trace_of(kernel: str, own: Sequence[Row], look: Style, quantity: Quantity) -> dict[str, Any]:
    """What every trace of a kernel has in common; `meta` lets a page recolour it for a dark theme."""
    color = look.light
    return {
        "name": html.escape(short(kernel)),
        "text": [_hover(row, quantity) for row in own],
        "hovertemplate": "%{text}<extra></extra>",
        "meta": {"kernel": kernel, "light": color, "dark": look.dark},
        "marker": {"symbol": look.symbol, "size": 8, "color": color, "line": {"width": 2 if look.hollow else 0, "color": color}},
        "line": {"dash": look.dash, "width": 1.75, "color": color},
        "type": "scatter",
    }


def _hover(row: Row, quantity: Quantity) -> str:
    value = units.quantity(row[quantity.column], quantity.unit)
    if quantity.low and row[quantity.low] is not None and quantity.high:
        value += f" ({units.quantity(row[quantity.low], quantity.unit)} – {units.quantity(row[quantity.high], quantity.unit)})"
    lines = [f"<b>{html.escape(row['kernel'])}</b>", html.escape(row["label"]), value]
    return "<br>".join(lines + ["approximate"] * bool(row["approximate"]))


def _whiskers(own: Sequence[Row], quantity: Quantity, divisor: float) -> dict[str, Any] | None:
    if quantity.low is None or quantity.high is None:
        return None
    above = [_reach(row[quantity.column], row[quantity.high]) for row in own]
    below = [_reach(row[quantity.column], row[quantity.low]) for row in own]
    return {
        "type": "data",
        "symmetric": False,
        "array": [reach / divisor for reach in above],
        "arrayminus": [reach / divisor for reach in below],
        "thickness": 1.25,
        "width": 3,
    }


def _reach(value: float, end: float | None) -> float:
    """How far a whisker goes; nowhere when the end of the interval is not known."""
    return abs(end - value) if end is not None and math.isfinite(end) else 0.0


def scale_of(drawn: Sequence[Row], quantity: Quantity) -> tuple[float, str]:
    """(divisor, unit) that suits the middle of what is drawn."""
    values = sorted(row[quantity.column] for row in drawn)
    return units.scale(values[len(values) // 2 :][:1], quantity.unit)


def axis_of(drawn: Sequence[Row], quantity: Quantity, divisor: float, unit: str) -> dict[str, Any]:
    """The axis of a quantity, in a unit that is divisor times its own."""
    unit = f", {unit}" if unit else ""
    title = f"{quantity.title}{unit}, {quantity.better} is better"
    if not quantity.log:
        return {"title": {"text": title}, "rangemode": "tozero", "automargin": True}
    values = [row[quantity.column] / divisor for row in drawn]
    return {"type": "log", "title": {"text": title}, "automargin": True} | _ticks(log_ticks(min(values, default=1), max(values, default=1)))


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    return {"tickvals": list(values), "ticktext": [f"{value:g}" if value < 1e6 else f"{value:.0e}" for value in values]} if values else {}


def _thinned(lengths: Sequence[int]) -> list[int]:
    """At most seven labels on the axis of lengths."""
    return list(lengths[:: math.ceil(len(lengths) / 7)]) if lengths else []


def figure_of(traces: Sequence[dict[str, Any]], across: dict[str, Any], up: dict[str, Any]) -> Figure:
    """Traces between two axes, with margins that suit small panels."""
    margin = {"l": 56, "r": 12, "t": 12, "b": 44}
    legend = {"orientation": "h", "y": -0.25}
    return {
        "data": list(traces),
        "layout": {"xaxis": across, "yaxis": up, "margin": margin, "hovermode": "closest", "legend": legend},
    }
