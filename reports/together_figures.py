"""Charts of several runs: a kernel keeps its colour and marker, a run has a dash, and its letter stands at the end of the line.

Plain data that plotly draws, as in `figures`; names that may come from a user's file are escaped.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from . import units
from .figures import QUANTITIES, axis_of, figure_of, scale_of, trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .figures import Figure, Row
    from .styles import Style
    from .together import Member

LATENCY = QUANTITIES["latency"]
DASHES = {"solid": "none", "dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 3", "longdashdot": "10 3 2 3"}
"""Plotly's name of each dash -> the same as an SVG stroke-dasharray, for legends outside plotly."""
MOST_TICKS = 7

Drawn = list[tuple["Member", list["Row"]]]
"""The rows of one variant and batch that have a number, run by run."""


def dash_of(member: Member) -> str:
    """The dash of a run; from the seventh on dashes return, and only the letter tells runs apart."""
    return list(DASHES)[(ord(member.letter) - ord("A")) % len(DASHES)]


def over_runs(drawn: Drawn, looks: Mapping[str, Style]) -> Figure:
    """Latency against length, a line for each kernel and run; a row of marks for each kernel where there is one length."""
    several = len({row["seq_len"] for _, own in drawn for row in own}) > 1
    return _lines(drawn, looks) if several else _marks(drawn, looks)


def _lines(drawn: Drawn, looks: Mapping[str, Style]) -> Figure:
    every = [row for _, own in drawn for row in own]
    divisor, unit = scale_of(every, LATENCY)
    traces = []
    for kernel in dict.fromkeys(row["kernel"] for row in every):
        for member, own in drawn:
            points = sorted((row for row in own if row["kernel"] == kernel), key=lambda row: row["seq_len"])
            if points:
                at = {"x": [row["seq_len"] for row in points], "y": [row["latency_s"] / divisor for row in points]}
                at |= {"mode": "lines+markers+text", "textposition": "middle right"}
                traces.append(_trace(member, kernel, points, looks[kernel]) | at)
    lengths = sorted({row["seq_len"] for row in every})
    shown = lengths[:: math.ceil(len(lengths) / MOST_TICKS)]
    across = {
        "type": "log",
        "title": {"text": "sequence length, tokens"},
        "tickvals": shown,
        "ticktext": [f"{length:g}" for length in shown],
    }
    # room for the letters
    across |= {"range": [math.log10(lengths[0]) - 0.05, math.log10(lengths[-1]) + 0.08 * math.log10(lengths[-1] / lengths[0]) + 0.03]}
    return figure_of(traces, across, axis_of(every, LATENCY, divisor, unit))


def _marks(drawn: Drawn, looks: Mapping[str, Style]) -> Figure:
    every = [row for _, own in drawn for row in own]
    divisor, unit = scale_of(every, LATENCY)
    best: dict[str, float] = {}
    for row in every:
        best[row["kernel"]] = min(row["latency_s"], best.get(row["kernel"], math.inf))
    names = sorted(best, key=lambda kernel: -best[kernel])
    traces = []
    for member, own in drawn:
        for row in own:
            at = {"x": [row["latency_s"] / divisor], "y": [row["kernel"]], "mode": "markers+text", "textposition": "top center"}
            traces.append(_trace(member, row["kernel"], [row], looks[row["kernel"]]) | at)
    kernels = {"type": "category", "automargin": True, "tickvals": names, "ticktext": [_tick(name) for name in names]}
    kernels |= {"categoryorder": "array", "categoryarray": names}
    return figure_of(traces, axis_of(every, LATENCY, divisor, unit), kernels)


def _trace(member: Member, kernel: str, points: Sequence[Row], look: Style) -> dict[str, Any]:
    trace = trace_of(kernel, points, look, LATENCY)
    trace["meta"] |= {"run": member.letter}
    trace["line"] |= {"dash": dash_of(member)}
    return trace | {
        "name": f"{trace['name']}, {member.letter}",
        "text": [""] * (len(points) - 1) + [member.letter],
        "hovertext": [_hover(member, row) for row in points],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _hover(member: Member, row: Row) -> str:
    value = units.quantity(row["latency_s"], "s")
    if row["latency_low_s"] is not None and row["latency_high_s"] is not None:
        value += f" ({units.quantity(row['latency_low_s'], 's')} – {units.quantity(row['latency_high_s'], 's')})"
    speedup = [f"{units.times(row['speedup'])} the speed of {html.escape(row['baseline'])}"] * (row["speedup"] is not None)
    named = f"<b>{member.letter}: {html.escape(row['kernel'])}</b>"
    return "<br>".join([named, html.escape(member.name), html.escape(row["label"]), value, *speedup])


def _tick(kernel: str) -> str:
    """A label that leaves room for the plot on a phone."""
    name = kernel.partition("/")[2]
    return html.escape(name if len(name) <= 16 else name[:15] + "…")
