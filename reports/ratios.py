"""Figures of a comparison as plain data that plotly draws: ratios with their intervals, and one cell process by process.

Every name that may come from a user's file is escaped, since plotly renders pseudo-HTML in labels and hover texts.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from . import styles, verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kerneldyno.bench.verdict import Ratio, Verdict

    from .figures import Figure

LOOKS: dict[str, tuple[tuple[str, str], str]] = {
    "REGRESSED": (styles.VERMILLION, "triangle-up"),
    "IMPROVED": (styles.BLUE, "triangle-down"),
    "SAME": (styles.GREY, "circle"),
    "INCONCLUSIVE": (styles.ORANGE, "diamond-open"),
    "INVALID": (styles.PURPLE, "x"),
}
"""Word -> (colour on light and on dark paper, plotly's symbol)."""
OTHER = (styles.BLACK, "square")
BAND = "rgba(128,128,128,0.18)"
LABEL_LENGTH = 26
WIDEST = 20.0
"""Ratios beyond this, and its inverse, are drawn at the edge."""


def forest(cells: Sequence[Verdict]) -> Figure:
    """The ratio of each cell with its interval on a logarithmic axis, first cell on top, and the margin as a band."""
    drawn = [cell for cell in cells if drawable(cell.latency)]
    traces = []
    for word in dict.fromkeys(_word(cell) for cell in drawn):
        own = [(cell, cell.latency) for cell in drawn if _word(cell) == word and cell.latency]
        (light, dark), symbol = LOOKS.get(word, OTHER)
        middle = [_bounded(ratio.ratio) for _, ratio in own]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": word,
                "x": middle,
                "y": [cell.cell for cell, _ in own],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, _bounded(ratio.high) - at) for (_, ratio), at in zip(own, middle, strict=True)],
                    "arrayminus": [max(0.0, at - _bounded(ratio.low)) for (_, ratio), at in zip(own, middle, strict=True)],
                    "color": light,
                    "thickness": 1.5,
                    "width": 4,
                },
                "text": [_hover(cell) for cell, _ in own],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"symbol": symbol, "size": 10, "color": light, "line": {"width": 2 if "open" in symbol else 0, "color": light}},
                "line": {"color": light},
                "meta": {"light": light, "dark": dark},
            }
        )
    names = [cell.cell for cell in reversed(drawn)]
    ticks = [_tick(cell) for cell in reversed(drawn)]
    margin = min((cell.latency.margin for cell in drawn if cell.latency), default=0.02)
    edges = [edge for cell in drawn if cell.latency for edge in (cell.latency.low, cell.latency.high)]
    cells_axis = {"type": "category", "automargin": True, "categoryarray": names, "tickvals": names, "ticktext": ticks}
    return _figure(traces, _axis([*edges, 1 / (1 + margin), 1 + margin]), cells_axis | {"range": [-0.6, len(names) - 0.4]}, margin, "x")


def processes(ratio: Ratio, word: str) -> Figure:
    """The ratio in each process, in the order in which they were measured; the mean of their logarithms as a line."""
    (light, dark), symbol = LOOKS.get(word, OTHER)
    values = [_bounded(math.exp(min(difference, 50.0))) for difference in ratio.differences if math.isfinite(difference)]
    order = list(range(1, len(values) + 1))
    common = {"type": "scatter", "meta": {"light": light, "dark": dark}}
    traces = [
        {
            "mode": "lines+markers",
            "name": "one process",
            "x": order,
            "y": values,
            "text": [f"process {number}<br>{value:.4f} ({verdicts.percent(value)})" for number, value in zip(order, values, strict=True)],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"symbol": symbol, "size": 8, "color": light, "line": {"width": 2 if "open" in symbol else 0, "color": light}},
            "line": {"color": light, "width": 1, "dash": "dot"},
        }
        | common,
        {
            "mode": "lines",
            "name": "mean",
            "x": [0.5, len(values) + 0.5],
            "y": [_bounded(ratio.ratio)] * 2,
            "hoverinfo": "skip",
            "line": {"color": light, "width": 2},
        }
        | common,
    ]
    across = {"title": {"text": "process, in the order of measuring"}, "range": [0.5, len(values) + 0.5], "dtick": max(1, len(values) // 8)}
    up = _axis([*values, ratio.ratio, 1 / (1 + ratio.margin), 1 + ratio.margin])
    return _figure(traces, across, up, ratio.margin, "y")


def drawable(ratio: Ratio | None) -> bool:
    """Whether there is a finite, positive ratio with a finite interval."""
    return ratio is not None and all(math.isfinite(value) and value > 0 for value in (ratio.ratio, ratio.low, ratio.high))


def steps(low: float, high: float) -> list[float]:
    """Ratios that make good ticks: round changes that cover the range, so few that their labels do not touch."""
    for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        ticks = [round(step * number, 3) for number in range(math.ceil(low / step), math.floor(high / step) + 1) if number > 0]
        if len(ticks) <= 7:
            return sorted({*ticks, 1.0})
    return [tick for tick in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if low <= tick <= high]


def _axis(values: Sequence[float]) -> dict[str, Any]:
    low, high = min(map(_bounded, values)), max(map(_bounded, values))
    pad = (high / low) ** 0.04  # so that no marker is cut at the edge
    low, high = low / pad, high * pad
    ticks = steps(low, high)
    title = {"text": "candidate ÷ base, lower is better"}
    named = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return {"type": "log", "title": title, "range": [math.log10(low), math.log10(high)], "automargin": True} | named


def _figure(traces: list[dict[str, Any]], across: dict[str, Any], up: dict[str, Any], margin: float, axis: str) -> Figure:
    """With the band in which a ratio is no change, and a line where both sides are equal."""
    other = "y" if axis == "x" else "x"
    whole = {f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1, f"{axis}ref": axis}
    band = whole | {
        "type": "rect",
        f"{axis}0": 1 / (1 + margin),
        f"{axis}1": 1 + margin,
        "fillcolor": BAND,
        "line": {"width": 0},
        "layer": "below",
    }
    equal = whole | {"type": "line", f"{axis}0": 1, f"{axis}1": 1, "line": {"width": 1, "color": "#808080"}, "layer": "below"}
    place = {"margin": {"l": 56, "r": 12, "t": 8, "b": 44}, "hovermode": "closest", "shapes": [band, equal]}
    return {"data": traces, "layout": {"xaxis": across, "yaxis": up} | place}


def _word(cell: Verdict) -> str:
    return cell.latency_word or cell.word


def _bounded(value: float) -> float:
    return min(max(value, 1 / WIDEST), WIDEST) if math.isfinite(value) else WIDEST


def _hover(cell: Verdict) -> str:
    lines = [verdicts.place(cell), f"time: {_word(cell)}", f"{verdicts.number(cell.latency)}", verdicts.times(cell.latency)]
    return "<br>".join(html.escape(line) for line in lines)


def _tick(cell: Verdict) -> str:
    """Kernel and problem in two short lines, which leaves room for the plot on a phone."""
    lines = (cell.kernel.partition("/")[2] or cell.kernel, cell.label)
    return "<br>".join(html.escape(line if len(line) <= LABEL_LENGTH else line[: LABEL_LENGTH - 1] + "…") for line in lines)
