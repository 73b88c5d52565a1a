"""Figures of speed against error: one shape in seconds, or small panels of speedups whose axes agree."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import units
from .figures import (
    QUANTITIES,
    Figure,
    Results,
    Row,
    axis_of,
    error_of,
    figure_of,
    log_ticks,
    looks_of,
    pareto,
    rows_of,
    scale_of,
    trace_of,
)
from .names import short

if TYPE_CHECKING:
    from .styles import Style

LEAST = 1e-9
"""No axis of errors goes further down: float32 rounds more than that."""
PLOT = 270, 200
"""Width and height between the axes of a panel on a phone, in pixels."""
NAME = 6.5, 14
"""Width of a character and height of a line, in pixels."""
GREY = "#808080"
"""Readable on a light and on a dark page."""
EQUALLY_FAST = {
    "type": "line", "xref": "x", "yref": "paper", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "layer": "below", "line": {"width": 1, "color": GREY},
}  # fmt: skip


def speed_against_error(frame: Results, looks: Mapping[str, Style] | None = None) -> Figure:
    """Latency against the error of the output, for the kernels at one shape, with the front that nothing beats in both."""
    drawn = [row for row in rows_of(frame) if row["status"] == "ok" and row["latency_s"] and error_of(row)]
    looks = looks or looks_of(frame)
    latency = QUANTITIES["latency"]
    divisor, unit = scale_of(drawn, latency)
    front = pareto((row["latency_s"] / divisor, float(error_of(row) or 0)) for row in drawn)
    line = {"shape": "hv", "width": 1, "dash": "dot", "color": GREY}
    traces: list[dict[str, Any]] = [
        {
            "x": [x for x, _ in front],
            "y": [y for _, y in front],
            "mode": "lines",
            "name": "no kernel is better in both",
            "hoverinfo": "skip",
        }
        | {"type": "scatter", "line": line, "meta": {"light": GREY, "dark": GREY}}
    ]
    for row in drawn:
        trace = trace_of(row["kernel"], [row], looks[row["kernel"]], latency)
        trace["text"] = [f"{trace['text'][0]}<br>relative rms error {error_of(row):.2g}"]
        traces.append(trace | {"x": [row["latency_s"] / divisor], "y": [error_of(row)], "mode": "markers"})
    decades = [10.0**power for power in range(-12, 3)]
    ticks = {"tickvals": decades, "ticktext": [units.error(decade) for decade in decades]}
    errors = {"type": "log", "title": {"text": "relative rms error, lower is better"}, "automargin": True} | ticks
    return figure_of(traces, axis_of(drawn, latency, divisor, unit), errors)


def speedup_against_error(panel: Results, every: Sequence[Row], looks: Mapping[str, Style]) -> Figure:
    """Speedup against error of the kernels at one shape, with axes that fit `every` row: panels side by side then compare.

    Errors far below those of approximations are rounding: they stand on one line at the bottom, so that the rest has room.
    """
    drawn = [row for row in rows_of(panel) if row["status"] == "ok" and row["speedup"] and error_of(row) is not None]
    floor = rounding_floor(every)
    points = [(row["speedup"], max(error_of(row) or 0.0, floor)) for row in drawn]
    front = [(-slower, error) for slower, error in reversed(pareto((-speedup, error) for speedup, error in points))]
    line = {"shape": "vh", "width": 1, "dash": "dot", "color": GREY}
    steps = {"x": [x for x, _ in front], "y": [y for _, y in front], "mode": "lines", "name": "no kernel is better in both"}
    traces = [steps | {"hoverinfo": "skip", "type": "scatter", "line": line, "meta": {"light": GREY, "dark": GREY}}]
    across, up = _axes(every, floor)
    named = _named([row for row, point in zip(drawn, points, strict=True) if row["approximate"] and point in front], floor, across, up)
    for row, (speedup, error) in sorted(zip(drawn, points, strict=True), key=lambda item: item[1]):
        trace = trace_of(row["kernel"], [row], looks[row["kernel"]], QUANTITIES["latency"])
        lines = [trace["text"][0], f"{units.times(speedup)} the speed of {html.escape(row['baseline'])}"]
        hover = "<br>".join([*lines, f"relative rms error {error_of(row):.2g}"])
        trace |= {"x": [speedup], "y": [error], "hovertext": [hover], "hovertemplate": "%{hovertext}<extra></extra>"}
        text = trace["name"] if row["kernel"] in named else ""
        traces.append(trace | {"text": [text], "mode": "markers+text", "textposition": "bottom right", "textfont": {"size": 11}})
    made = figure_of(traces, across, up)
    made["layout"]["shapes"] = [EQUALLY_FAST]
    return made


def rounding_floor(every: Sequence[Row]) -> float:
    """What errors are drawn at that are less than a third of any approximation's."""
    errors = [float(error_of(row) or 0) for row in every if row["approximate"] and (error_of(row) or 0) > 0]
    return max(min(errors, default=1e-3) / 3, LEAST)


def _named(rows: Sequence[Row], floor: float, across: Mapping[str, Any], up: Mapping[str, Any]) -> set[str]:
    """The kernels whose names can stand below and to the right of their markers without covering one another, on a phone too.

    The smallest errors come first. The legend, hovering and the table name the others.
    """

    def place(value: float, axis: Mapping[str, Any], pixels: int) -> float:
        low, high = axis["range"]
        return float((math.log10(value) - low) / (high - low) * pixels)

    taken: list[tuple[float, float, float]] = []
    named = set()
    for row in sorted(rows, key=lambda row: error_of(row) or 0.0):
        left, top = place(row["speedup"], across, PLOT[0]), place(max(error_of(row) or 0.0, floor), up, PLOT[1])
        right = left + NAME[0] * len(short(row["kernel"]))
        if all(abs(top - other) >= NAME[1] or left > end or right < start for start, end, other in taken):
            taken.append((left, right, top))
            named.add(row["kernel"])
    return named


def _axes(every: Sequence[Row], floor: float) -> tuple[dict[str, Any], dict[str, Any]]:
    speedups = [row["speedup"] for row in every if row["speedup"]]
    low, high = min([1.0, *speedups]) / 1.15, max([1.0, *speedups]) * 1.15
    high *= (high / low) ** 0.25  # names stand to the right of their markers
    bases = sorted({html.escape(short(row["baseline"])) for row in every})
    ticks = [tick for tick in sorted({1.0, *log_ticks(low, high)}) if low <= tick <= high]
    across = {
        "type": "log",
        "title": {"text": f"speed against {' or '.join(bases)}, higher is better"},
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}×" for tick in ticks],
    }
    top = max([floor * 3, *(float(error_of(row) or 0) for row in every)]) * 1.4
    marks = [mark for mark in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0) if floor * 1.5 < mark <= top]
    up = {
        "type": "log",
        "title": {"text": "relative rms error, lower is better"},
        "range": [math.log10(floor / 1.5), math.log10(top)],
        "tickvals": [floor, *marks],
        "ticktext": ["exact", *(f"{mark:.1%}" if mark < 0.01 else f"{mark:.0%}" for mark in marks)],
        "automargin": True,
    }
    return across, up
