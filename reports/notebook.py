"""The charts of a run for notebooks: functions that return plotly figures, each with its title, from `frame.load(folder)`.

They choose rows, and draw with the modules that draw the page; tables are `frames.results`, `.samples` and `.winners`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from . import figures, roofline, summary, trade_figures
from .columns import COLUMNS
from .figures import QUANTITIES
from .frame import rows
from .heatmap import heatmap
from .shapes import SHORT_DTYPES
from .standalone import described, standalone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .figures import Figure, Row
    from .frame import Frames

CHOSEN = ("batch", "dtype", "direction")
"""Columns of every operator that make a problem; those that only some have are no columns of COLUMNS."""
MOST_OFFERED = 6
"""So many shapes, or values of a column, are named to choose from."""


def latency(frames: Frames, operator: str, **only: Any) -> go.Figure:
    """Latency against sequence length, or of each kernel where there is one length; see `against_length`."""
    return against_length(frames, "latency", operator, **only)


def memory(frames: Frames, operator: str, **only: Any) -> go.Figure:
    """Peak memory, likewise."""
    return against_length(frames, "memory", operator, **only)


def against_length(frames: Frames, quantity: str, operator: str, **only: Any) -> go.Figure:
    """A quantity ("latency", "share", "memory", "energy", "power") of the kernels of one operator, with the intervals that there are.

    `only`: columns of the results and the value that rows must have there: `batch=4, causal=False`. Raises ValueError when no
    row is left, when no row has this quantity, and when a kernel would have two values at one length.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity {quantity!r} is unknown: choose from {', '.join(QUANTITIES)}")
    drawn = figures.drawable(_rows(frames, operator, only), QUANTITIES[quantity])
    if not drawn:
        raise ValueError(f"no case of {operator}{' with ' * bool(only)}{_words(only)} has a value of {QUANTITIES[quantity].column}")
    _require_one_shape(drawn)
    return _figure(figures.panel(drawn, QUANTITIES[quantity]), f"{_name(operator)}: {QUANTITIES[quantity].title}", frames, drawn, only)


def speedups(frames: Frames, operator: str, **only: Any) -> go.Figure:
    """Speed of every kernel at every shape against the baseline, winners marked: the overview. `only` as in `against_length`."""
    drawn = _rows(frames, operator, only)
    return _figure(heatmap(drawn, frames.winners), f"{_name(operator)}: speed against the baseline", frames, drawn, only)


def error(frames: Frames, operator: str, **only: Any) -> go.Figure:
    """Latency against the output's relative root-mean-square error at one shape, with the front that no kernel beats in both.

    `only` as in `against_length`; `label="1×8×512×64 fp32"` names a shape. Raises ValueError when rows of several shapes are left.
    """
    drawn = _rows(frames, operator, only)
    labels = list(dict.fromkeys(row["label"] for row in drawn))
    if len({row["group"] for row in drawn}) > 1:
        raise ValueError(f"these rows are of {len(labels)} shapes: choose one, {_offered('label', labels)}")
    return _figure(trade_figures.speed_against_error(drawn), f"{_name(operator)}: speed against error", frames, drawn, only)


def roof(frames: Frames, operator: str, dtype: str, **only: Any) -> go.Figure:
    """The roofline: rate against arithmetic intensity under what the machine was measured to do.

    `dtype`: "float32", "bfloat16", … Raises ValueError where the machine's rates were not measured in this dtype.
    """
    drawn = _rows(frames, operator, {"dtype": dtype, **only})
    made = roofline.roofline(drawn, frames.run.ceilings)
    if made is None:
        raise ValueError(f"no roofline of {operator} in {dtype}: {roofline.takeaway(drawn, frames.run.ceilings)}")
    return _figure(made, f"{_name(operator)}: roofline", frames, drawn, only)


def samples(frames: Frames, case: str) -> go.Figure:
    """Every sample of a case, whose id stands in the results' column `case`, in the order in which they were taken: drift is visible.

    Raises ValueError for a case without samples.
    """
    taken = frames.samples[frames.samples["case"] == case]
    found = [row for row in rows(frames.results) if row["case"] == case]
    if taken.empty or not found:
        raise ValueError(f"there are no samples of a case {case!r}: choose an id from the column `case` of the rows whose status is ok")
    [row] = found
    divisor, unit = figures.scale_of(
        [row] if row["latency_s"] else [{"latency_s": float(taken["latency_s"].median())}], QUANTITIES["latency"]
    )
    look = figures.looks_of([row])[row["kernel"]]
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": f"process {number + 1}", "x": own["position"].tolist(),
            "y": (own["latency_s"] / divisor).tolist(), "marker": {"color": look.light, "symbol": number, "size": 6},
        }
        for number, (_, own) in enumerate(taken.groupby("process"))
    ]  # fmt: skip
    across, up = {"title": {"text": "sample, in the order of measuring"}}, {"title": {"text": f"latency, {unit}, lower is better"}}
    return _figure(figures.figure_of(traces, across, up), f"{row['kernel']}: every sample", frames, [row], {})


def _rows(frames: Frames, operator: str, only: Mapping[str, Any]) -> list[Row]:
    every = rows(frames.results)
    operators = list(dict.fromkeys(row["operator"] for row in every))
    if operator not in operators:
        raise ValueError(f"operator {operator!r} is not in this run: choose from {', '.join(operators)}")
    if unknown := [name for name in only if name not in frames.results]:
        raise ValueError(f"{unknown[0]!r} is no column of the results: see list(frames.results)")
    found: list[Row] = [row for row in every if row["operator"] == operator]
    for place, (name, value) in enumerate(only.items()):
        if not (left := [row for row in found if row[name] == value]):
            before = _words(dict(list(only.items())[:place]))
            raise ValueError(f"no case of {operator}{' with ' * bool(before)}{before} has {name} {value}: {_alternatives(name, found)}")
        found = left
    return found


def _require_one_shape(drawn: Sequence[Row]) -> None:
    """Raise ValueError where the rows of one kernel do not make one line."""
    groups: dict[tuple[str, int], Row] = {}
    for row in drawn:
        other = groups.setdefault((row["kernel"], row["seq_len"]), row)
        if other["group"] != row["group"]:
            chosen = [name for name in row if (name in CHOSEN or name not in COLUMNS) and other[name] != row[name]]
            example = f", for example {chosen[0]}={other[chosen[0]]!r}" if chosen else ""
            raise ValueError(
                f"{row['kernel']} has several values at length {row['seq_len']} ({other['label']} and {row['label']}): choose one{example}"
            )


def _figure(drawn: Figure, title: str, frames: Frames, shown: Sequence[Row], only: Mapping[str, Any]) -> go.Figure:
    """As wide as the notebook is."""
    labels = list(dict.fromkeys(row["label"] for row in shown))
    dtypes = dict.fromkeys(str(SHORT_DTYPES.get(row["dtype"], row["dtype"])) for row in shown)
    shape = labels[0] if len(labels) == 1 else described(_words(only), ", ".join(dtypes))
    made = standalone(drawn, title, (shape, described(summary.machine(frames.run), summary.date(frames.run))))
    del made["layout"]["width"]
    return go.Figure(made)


def _name(operator: str) -> str:
    return summary.OPERATORS.get(operator, operator)


def _words(only: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in only.items())


def _alternatives(name: str, found: Sequence[Row]) -> str:
    """What the rows have in a column, some of it."""
    values = [row[name] for row in found if row[name] is not None]
    return f"choose {_offered(name, values)}" if values else f"these cases have no {name}"


def _offered(name: str, values: Sequence[Any]) -> str:
    told = list(dict.fromkeys(f"{name}={value!r}" for value in values))
    return ", ".join(told[:MOST_OFFERED]) + ", …" * (len(told) > MOST_OFFERED)
