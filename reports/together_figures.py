"""Charts of several runs: a kernel keeps its colour and marker, and a run's letter stands at the end of its line.

Plain data that plotly draws, as in `figures`; names that may come from a user's file are escaped.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from . import units
from .figures import QUANTITIES, axis_of, figure_of, scale_of, trace_of
from .names import label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .figures import Figure
    from .styles import Style
    from .together import Member, Row

LATENCY = QUANTITIES["latency"]
DASHES = {"solid": "none", "dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 3", "longdashdot": "10 3 2 3"}
"""Plotly's name of each dash -> the same as an SVG stroke-dasharray, for legends outside plotly. Of more runs than these every
line is solid, and only letters tell runs apart: two runs never share a dash."""
MOST_TICKS = 7
LETTER = 0.034
"""Room for the letter of one run, as a share of the axis: letters stand side by side, since lines often end at one place."""

LENGTHS = "sequence length, tokens"
FILLED = 0.8
"""Share of a kernel's row that the lanes of its runs take up."""
LEAST_HEIGHT, ROW_HEIGHT, LANE_HEIGHT = 290, 26, 14
GAP = "\N{NO-BREAK SPACE}" * 3

Drawn = list[tuple["Member", list["Row"]]]
"""The rows of one variant and batch that have a number, run by run."""


def has_dashes(runs: int) -> bool:
    """Whether each of so many runs has a dash of its own."""
    return runs <= len(DASHES)


def dash_of(member: Member) -> str:
    """The dash of a run, where `has_dashes`."""
    return list(DASHES)[ord(member.letter) - ord("A")]


def height(figure: Figure, runs: int) -> int:
    """Pixels in which labels and letters of a chart do not touch."""
    kernels = 0 if figure["layout"]["xaxis"]["title"]["text"] == LENGTHS else len(figure["layout"]["yaxis"]["tickvals"])
    return max(LEAST_HEIGHT, 90 + max(ROW_HEIGHT, LANE_HEIGHT * runs) * kernels)


def over_runs(drawn: Drawn, looks: Mapping[str, Style], *, dashed: bool = True) -> Figure:
    """Latency against length, a line for each kernel and run; a row of marks for each kernel where there is one length.

    `dashed`: a dash tells runs apart, besides the letter (see `has_dashes`).
    """
    several = len({row["seq_len"] for _, own in drawn for row in own}) > 1
    figure = _lines(drawn, looks) if several else _marks(drawn, looks)
    dashes = {member.letter: dash_of(member) if dashed else "solid" for member, _ in drawn}
    for trace in figure["data"]:
        trace["line"] |= {"dash": dashes[trace["meta"]["run"]]}
    return figure


def _lines(drawn: Drawn, looks: Mapping[str, Style]) -> Figure:
    every = [row for _, own in drawn for row in own]
    divisor, unit = scale_of(every, LATENCY)
    traces = []
    for kernel in dict.fromkeys(row["kernel"] for row in every):
        for number, (member, own) in enumerate(drawn):
            points = sorted((row for row in own if row["kernel"] == kernel), key=lambda row: row["seq_len"])
            if points:
                at: dict[str, Any] = {"x": [row["seq_len"] for row in points], "y": [row["latency_s"] / divisor for row in points]}
                at |= {"mode": "lines+markers+text", "textposition": "middle right"}
                letter = GAP * number + member.letter
                traces.append(_trace(member, kernel, points, looks[kernel]) | at | {"text": [""] * (len(points) - 1) + [letter]})
    lengths = sorted({row["seq_len"] for row in every})
    shown = lengths[:: math.ceil(len(lengths) / MOST_TICKS)]
    across: dict[str, Any] = {"type": "log", "title": {"text": LENGTHS}, "tickvals": shown, "ticktext": list(map(str, shown))}
    low, high = math.log10(lengths[0]), math.log10(lengths[-1])
    room = 0.03 + LETTER * len(drawn)
    across |= {"range": [low - 0.04 * (high - low), high + room / (1 - room) * (high - low)]}
    return figure_of(traces, across, axis_of(every, LATENCY, divisor, unit))


def _marks(drawn: Drawn, looks: Mapping[str, Style]) -> Figure:
    every = [row for _, own in drawn for row in own]
    divisor, unit = scale_of(every, LATENCY)
    best: dict[str, float] = {}
    for row in every:
        best[row["kernel"]] = min(row["latency_s"], best.get(row["kernel"], math.inf))
    names = sorted(best, key=lambda kernel: -best[kernel])
    traces = []
    for number, (member, own) in enumerate(drawn):
        lane = 0.5 - (number + 0.5) / len(drawn)
        for row in own:
            at: dict[str, Any] = {"x": [row["latency_s"] / divisor], "y": [names.index(row["kernel"]) + FILLED * lane]}
            at |= {"mode": "markers+text", "textposition": "middle right", "text": [member.letter]}
            traces.append(_trace(member, row["kernel"], [row], looks[row["kernel"]]) | at)
    kernels: dict[str, Any] = {
        "automargin": True,
        "tickvals": list(range(len(names))),
        "ticktext": [label(name) for name in names],
        "zeroline": False,
    }
    kernels |= {"range": [-0.6, len(names) - 0.4]}
    return figure_of(traces, axis_of(every, LATENCY, divisor, unit), kernels)


def _trace(member: Member, kernel: str, points: Sequence[Row], look: Style) -> dict[str, Any]:
    trace = trace_of(kernel, points, look, LATENCY)
    trace["meta"] |= {"run": member.letter}
    return trace | {
        "name": f"{trace['name']}, {member.letter}",
        "textfont": {"size": 10},
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
