"""Crossover lengths: from which sequence length on one kernel is faster than another, as a table, in sentences and drawn.

What counts as a crossing, and how its length is interpolated, is decided in bench/crossings.py.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from kerneldyno.bench.crossings import Crossing, crossings
from kerneldyno.bench.stats import is_tie

from . import units
from .figures import figure_of, log_ticks
from .names import label, marked, short
from .ratios import BAND
from .shapes import SHORT_DTYPES, titles, variants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kerneldyno.bench.crossings import Point
    from kerneldyno.bench.journal import Run

    from .figures import Figure, Row
    from .styles import Style
    from .tables import Text

COLUMNS: dict[str, str] = {
    "operator": "attention, feedforward or layer",
    "device": "where it ran: cpu or cuda:N",
    "dtype": "data type of inputs and output",
    "direction": "forward, or backward (forward and backward in one call)",
    "batch": "independent sequences in one call",
    "variant": "how the problems differ from others of the operator in the run beside batch and length; empty when nothing does",
    "division": "exact, or approximate when either kernel is",
    "shorter": "the kernel that is faster at shorter sequences",
    "longer": "the kernel that is faster at longer sequences",
    "low_len": "measured length at which `shorter` is faster beyond noise, tokens",
    "high_len": "measured length at which `longer` is faster beyond noise, tokens; between the two lie ties or nothing",
    "estimate_len": "length from which on `longer` is the faster one, tokens: interpolated between them on logarithmic axes",
    "interval_low": "lower end of the lengths at which the 95 % interval of the ratio of times, interpolated likewise, holds 1",
    "interval_high": "upper end of these lengths",
    "refined": "whether a length was added to the plan to find it more closely (--refine-crossovers)",
    "leads": "whether these two are the fastest of their division there, or tie with it, so that the winner changes; the other pairs "
    "are a kernel and its baseline, or two that win at other lengths",
    "cases": "ids of the cases at low_len and at high_len, `shorter` first",
}
"""What each column of `crossovers` means."""
HEADINGS = [
    ("overtakes", "faster above", False), ("overtaken", "faster below", False), ("problems", "", False), ("length", "tokens", True),
    ("95 % interval", "tokens", False), ("measured at", "tokens", False),
]  # fmt: skip
"""Of the table for people: heading, its second line, whether it is a number."""


@dataclass(frozen=True)
class Crossover:
    """One row of the table, and what it was made from."""

    row: Row
    """As in COLUMNS."""
    crossing: Crossing


def read(run: Run) -> list[Crossover]:
    """Every crossover of a run, by operator, batch and variant, those where the winner changes first."""
    found = crossings(run)
    added, by_case = {case.id for case in run.added}, variants(run.cases)
    operators = dict.fromkeys(case.operator for case in run.cases)
    own = {operator: [by_case[case.id] for case in run.cases if case.operator == operator] for operator in operators}
    named = {variant: title if len(set(own[name])) > 1 else "" for name in operators for variant, title in titles(own[name])[0].items()}
    made = [Crossover(_row(crossing, named[crossing.axis.variant], added), crossing) for crossing in found]
    order = list(operators)
    return sorted(made, key=lambda one: (order.index(one.row["operator"]), not one.row["leads"]))


def crossovers(run: Run) -> pd.DataFrame:
    """One row per crossover; columns as in COLUMNS."""
    return pd.DataFrame([one.row for one in read(run)], columns=list(COLUMNS))


def sentence(row: Row) -> str:
    """Who overtakes whom, where, and how closely that is known."""
    interval = _interval(row["interval_low"], row["interval_high"])
    known = f"95 % interval {interval}; measured at {row['low_len']} and {row['high_len']}"
    return f"{title(row)}, at a length of about {_tokens(row['estimate_len'])} ({known})."


def leading(run: Run) -> list[str]:
    """A sentence for each place where the fastest exact kernel changes."""
    return [sentence(one.row) for one in read(run) if one.row["leads"] and one.row["division"] == "exact"]


def takeaway(found: Sequence[Crossover]) -> str:
    """How often the fastest kernel changes with the length, the sentence of the one known best, and how to learn more."""
    leading = [one.row for one in found if one.row["leads"]]
    if not found:
        return "At no measured length does one kernel overtake another beyond noise."
    if not leading:
        places = units.count(len(found), "place")
        return f"The fastest kernel changes nowhere beyond noise; of other pairs, one overtakes the other in {places}."
    said = f"The fastest kernel changes with the length in {units.count(len(leading), 'place')}."
    best = min((row for row in leading if row["division"] == "exact"), key=_width, default=min(leading, key=_width))
    more = (
        ""
        if any(row["refined"] for row in leading)
        else " Lengths between measured ones are interpolated: --refine-crossovers measures some."
    )
    return f"{said} {sentence(best)}{more}"


def lines(found: Sequence[Crossover]) -> list[tuple[Row, list[Text]]]:
    """The crossovers as rows of a table under HEADINGS, each with its row of COLUMNS."""
    return [(one.row, _cells(one)) for one in found]


def _cells(one: Crossover) -> list[Text]:
    row, (low, high) = one.row, (one.crossing.points[0], one.crossing.points[-1])
    longer, shorter = (marked(row[name], row[name] in one.crossing.approximate) for name in ("longer", "shorter"))
    return [
        (longer, high.cases[1]),
        (shorter, low.cases[0]),
        _place(row),
        _tokens(row["estimate_len"]),
        _interval(row["interval_low"], row["interval_high"]),
        f"{row['low_len']} and {row['high_len']}" + (" (added)" if row["refined"] else ""),
    ]


def title(row: Row) -> str:
    """Who overtakes whom, of which problems: the heading of a figure."""
    return f"{_place(row)}: {short(row['longer'])} overtakes {short(row['shorter'])}"


def figure(one: Crossover, looks: Mapping[str, Style]) -> Figure:
    """The ratio of the two kernels' times against length, both logarithmic, with 95 % intervals.

    The line is where both are as fast, the band the interval of the crossover; above it `shorter` is the faster kernel.
    """
    row, curve = one.row, [point for point in one.crossing.curve if math.isfinite(point.ratio.estimate) and point.ratio.estimate > 0]
    look = looks[row["longer"]]
    ends = [end for point in curve for end in _ends(point)]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(f"{short(row['longer'])} ÷ {short(row['shorter'])}"),
        "x": [point.length for point in curve],
        "y": [point.ratio.estimate for point in curve],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [_ends(point)[1] - point.ratio.estimate for point in curve],
            "arrayminus": [point.ratio.estimate - _ends(point)[0] for point in curve],
            "thickness": 1.25,
            "width": 3,
        },
        "text": [_hover(point, row) for point in curve],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": look.symbol, "size": 8, "color": look.light, "line": {"width": 2 if look.hollow else 0, "color": look.light}},
        "line": {"dash": look.dash, "width": 1.75, "color": look.light},
        "meta": {"light": look.light, "dark": look.dark},  # of two kernels: choosing one hides nothing
    }
    lengths = [point.length for point in curve]
    across = {"type": "log", "title": {"text": "sequence length, tokens"}} | _ticks(lengths[:: math.ceil(len(lengths) / 7)])
    up_title = {"text": f"time, {label(row['longer'])} ÷ {label(row['shorter'])}"}
    up = {"type": "log", "title": up_title, "automargin": True} | _ticks(_ratios(min([*ends, 1.0]), max([*ends, 1.0])))
    made = figure_of([trace], across, up)
    made["layout"] |= {"shapes": _shapes(row), "annotations": _sides(row), "showlegend": False}
    made["layout"]["margin"] |= {"t": 24}  # for the length above the band
    return made


def _row(crossing: Crossing, variant: str, added: set[str]) -> dict[str, Any]:
    estimate, low, high = crossing.length
    first, last = crossing.points[0], crossing.points[-1]
    kind, cases = crossing.axis.variant, (*first.cases, *last.cases)
    return {
        "operator": kind.operator,
        "device": kind.device,
        "dtype": kind.dtype,
        "direction": dict(kind.fields)["direction"],
        "batch": crossing.axis.batch,
        "variant": variant,
        "division": "approximate" if crossing.approximate else "exact",
        "shorter": crossing.shorter,
        "longer": crossing.longer,
        "low_len": first.length,
        "high_len": last.length,
        "estimate_len": estimate,
        "interval_low": low,
        "interval_high": high,
        "refined": not added.isdisjoint(cases),
        "leads": crossing.leads,
        "cases": " ".join(cases),
    }


def _place(row: Row) -> str:
    """Of which problems a row is, in words."""
    both = " · forward + backward" if row["direction"] == "backward" else ""
    variant = row["variant"] or f"{SHORT_DTYPES.get(row['dtype'], row['dtype'])}{both}"
    return f"{row['operator']} · batch {row['batch']} · {variant}"


def _tokens(length: float) -> str:
    """As closely as three digits say it; a length is a whole number."""
    return f"{float(f'{length:.3g}'):.0f}"


def _interval(low: float, high: float) -> str:
    return f"{math.floor(low)} – {math.ceil(high)}"


def _width(row: Row) -> float:
    return float(row["interval_high"] / row["interval_low"])


def _ends(point: Point) -> tuple[float, float]:
    """The ends of a ratio's interval, for drawing; the estimate where they are not known, or not finite."""
    estimate, low, high = point.ratio
    return (low if math.isfinite(low) and low > 0 else estimate), (high if math.isfinite(high) else estimate)


def _hover(point: Point, row: Row) -> str:
    low, high = _ends(point)
    faster = "tie" if is_tie(point.ratio) else f"{short(row['shorter' if point.ratio.estimate > 1 else 'longer'])} is faster"
    lines = [f"length {point.length}", f"{point.ratio.estimate:.3f} ({low:.3f} – {high:.3f})", faster]
    return "<br>".join(html.escape(line) for line in lines)


def _ratios(low: float, high: float) -> list[float]:
    """Round ratios that cover a range, 1 among them."""
    near = [tick for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 2.0) if low / 1.05 <= tick <= high * 1.05]
    return near if low >= 0.45 and high <= 2.2 else sorted({*log_ticks(low, high), 1.0})


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    return {"tickvals": list(values), "ticktext": [f"{value:g}" for value in values]}


def _shapes(row: Row) -> list[dict[str, Any]]:
    band = {"type": "rect", "xref": "x", "yref": "paper", "x0": row["interval_low"], "x1": row["interval_high"], "y0": 0, "y1": 1}
    middle = {"type": "line", "xref": "x", "yref": "paper", "x0": row["estimate_len"], "x1": row["estimate_len"], "y0": 0, "y1": 1}
    equal = {"type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    line = {"width": 1, "color": "#808080"}
    return [
        band | {"fillcolor": BAND, "line": {"width": 0}, "layer": "below"},
        middle | {"line": line | {"dash": "dot"}, "layer": "below"},
        equal | {"line": line, "layer": "below"},
    ]


def _sides(row: Row) -> list[dict[str, Any]]:
    """Which kernel is faster above the line and which below, in the corners that the curve leaves free; and the length."""
    common = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"size": 11}}
    above = {"x": 0.99, "y": 0.99, "xanchor": "right", "yanchor": "top", "text": f"↑ {label(row['shorter'])} faster"}
    below = {"x": 0.01, "y": 0.01, "xanchor": "left", "yanchor": "bottom", "text": f"↓ {label(row['longer'])} faster"}
    length = {"x": math.log10(row["estimate_len"]), "xref": "x", "y": 1, "yanchor": "bottom", "text": _tokens(row["estimate_len"])}
    return [common | above, common | below, common | length]
