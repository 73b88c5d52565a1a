"""The figure of one series: latency run after run, a line for each level, a mark where it changed, signs where there is no number.

Plain data that plotly draws, as in `figures`; names that may come from a user's file are escaped.
"""

from __future__ import annotations

import html
import statistics
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import units
from .change_points import levels
from .history import has_number
from .styles import BLUE, VERMILLION, Style
from .tables import STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .figures import Figure
    from .history import Row, Series

LEAST_SPAN = 0.1
"""The axis reaches this fraction beyond the middle on both sides at least: noise of 1 % shall not look like a mountain range."""
MOST_TICKS = 4


def over_runs(series: Series, look: Style) -> Figure | None:
    """Latency over the runs of a series, oldest left; None where no run has a number."""
    measured = series.measured
    if not measured:
        return None
    middle = statistics.median(row["latency_s"] for row in measured)
    divisor, unit = units.scale([middle], "s")
    places = [number for number, row in enumerate(series.rows) if has_number(row)]
    span = _span(measured, middle, divisor)
    traces = [_levels(series, places, look, divisor), _runs(measured, places, look, divisor)]
    traces += [_mark(series, places[change.point.position], span, change.point.change) for change in series.changes]
    shown = {"title": {"text": f"latency, {unit}, lower is better"}, "automargin": True, "range": span}
    layout = {"xaxis": _axis(series.rows), "yaxis": shown, "margin": {"l": 56, "r": 12, "t": 12, "b": 54}, "hovermode": "closest"}
    return {
        "data": traces,
        "layout": layout | {"annotations": [_gap(place, row) for place, row in enumerate(series.rows) if not has_number(row)]},
    }


def hover(row: Row) -> str:
    """What is told of one run's number."""
    value = units.quantity(row["latency_s"], "s")
    if row["latency_low_s"] is not None and row["latency_high_s"] is not None:
        value += f" ({units.quantity(row['latency_low_s'], 's')} – {units.quantity(row['latency_high_s'], 's')})"
    commit = f"commit {row['commit']}" if row["commit"] else "commit not known"
    return "<br>".join([f"<b>{html.escape(row['run'])}</b>", html.escape(commit), html.escape(row["created"]), value])


def _runs(measured: Sequence[Row], places: Sequence[int], look: Style, divisor: float) -> dict[str, Any]:
    reach = {name: [_reach(row, f"latency_{name}_s") / divisor for row in measured] for name in ("high", "low")}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(places),
        "y": [row["latency_s"] / divisor for row in measured],
        "error_y": {"type": "data", "symmetric": False, "array": reach["high"], "arrayminus": reach["low"], "thickness": 1, "width": 0},
        "text": [hover(row) for row in measured],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": look.symbol, "size": 7, "line": {"width": 2 if look.hollow else 0}},
        "meta": {"light": look.light, "dark": look.dark},
    }


def _levels(series: Series, places: Sequence[int], look: Style, divisor: float) -> dict[str, Any]:
    across: list[float | None] = []
    up: list[float | None] = []
    for start, stop, level_s in levels([row["latency_s"] for row in series.measured], [change.point for change in series.changes]):
        across += [places[start] - 0.4, places[stop - 1] + 0.4, None]
        up += [level_s / divisor, level_s / divisor, None]
    line = {"width": 2.5, "dash": "solid"}
    return {
        "type": "scatter", "mode": "lines", "x": across, "y": up, "line": line, "hoverinfo": "skip", "opacity": 0.55,
        "meta": {"light": look.light, "dark": look.dark},
    }  # fmt: skip


def _mark(series: Series, place: int, span: Sequence[float], change: float) -> dict[str, Any]:
    """A vertical line where the new level begins: dotted upwards, dashed downwards, so that colour does not stand alone."""
    light, dark = VERMILLION if change > 0 else BLUE
    return {
        "type": "scatter", "mode": "lines", "x": [place - 0.5, place - 0.5], "y": list(span), "hoverinfo": "text",
        "text": [f"{change * 100:+.1f} % from run {html.escape(series.rows[place]['run'])} on"] * 2,
        "line": {"width": 1.5, "dash": "dot" if change > 0 else "dash"}, "meta": {"light": light, "dark": dark},
    }  # fmt: skip


def _gap(place: int, row: Row) -> dict[str, Any]:
    """A sign at the foot of the chart: never a point at 0."""
    word, sign = STATES[row["status"]]
    told = f"{html.escape(row['run'])}: {word}<br>{html.escape(row['reason'] or 'no number')}"
    return {"x": place, "y": 0, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": sign, "hovertext": told}


def _span(measured: Sequence[Row], middle: float, divisor: float) -> list[float]:
    """Both ends of the axis: all numbers, with the ends of intervals as far as those do not squeeze the rest."""
    values = [row["latency_s"] for row in measured]
    low, high = min([*values, middle * (1 - LEAST_SPAN)]), max([*values, middle * (1 + LEAST_SPAN)])
    room = 0.06 * (high - low)
    return [max(0.0, low - 2 * room) / divisor, (high + room) / divisor]


def _axis(rows: Sequence[Row]) -> dict[str, Any]:
    step = max(1, -(-len(rows) // MOST_TICKS))
    shown = list(range(0, len(rows), step))
    of_one_day = len({row["created"][:10] for row in rows}) == 1
    return {
        "title": {"text": "run, oldest left"},
        "tickvals": shown,
        "ticktext": [_day(rows[place]["created"], of_one_day=of_one_day) for place in shown],
        "tickangle": 0,
        "range": [-0.7, len(rows) - 0.3],
        "zeroline": False,
    }


def _day(created: str, *, of_one_day: bool) -> str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return html.escape(created[:10])
    return f"{moment:%H:%M}<br>UTC" if of_one_day else f"{moment.day} {moment:%b}<br>{moment.year}"


def _reach(row: Row, column: str) -> float:
    end = row[column]
    return abs(end - row["latency_s"]) if end is not None else 0.0
