"""An overview in one picture: kernels downwards, shapes across, and in each cell the speedup against the baseline.

Every name that may come from a user's file is escaped, since plotly renders pseudo-HTML in labels.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from . import tables
from .figures import rows_of
from .standalone import shortened
from .tables import BEST, BEST_APPROXIMATE, TIE, Marks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from .figures import Figure, Results, Row
    from .tables import Cell

SLOWER, EQUAL, FASTER, WITHOUT = "#f0a868", "#ffffff", "#84b9e0", "#ececec"
"""Colours on which black text has a contrast of more than 7:1: much slower, as fast as the baseline, much faster, no number."""
WIDEST = 2.0
"""From 4 times the baseline's speed on, and from a quarter down, the colour stays the same."""
ROW_HEIGHT = 30
LABEL_LENGTH = 14
UNPLANNED = "not asked"
KEY = (
    f"speed against the baseline, higher is better · {BEST} fastest exact kernel · {BEST_APPROXIMATE} fastest approximate one · "
    f"{TIE} too close"
)


def heatmap(frame: Results, contests: pd.DataFrame | None = None) -> Figure:
    """Kernel × shape of one operator, exact kernels above approximate ones, each division with its fastest kernel on top.

    A cell without a number says why in a word. The winner of each shape is the one in `contests` (`frame.winners`); without
    them it is the one with the largest paired speedup. Raises ValueError when the rows are of several operators, or there are none.
    """
    drawn = list(rows_of(frame))
    operators = list(dict.fromkeys(row["operator"] for row in drawn))
    if len(operators) != 1:
        raise ValueError(f"a heatmap is of one operator, and these rows are of {', '.join(operators) or 'none'}: choose rows of one")
    marks = _fastest(drawn) if contests is None else Marks.of(drawn, contests[contests["group"].isin({row["group"] for row in drawn})])
    shapes, across = _shapes(drawn)
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"hovermode": "closest", "annotations": [], "margin": {"l": 70, "r": 24, "t": 24, "b": 64}}
    divisions = [(False, "exact"), (True, "approximate")]
    present = [(name, own) for loose, name in divisions if (own := _kernels(drawn, approximate=loose))]
    total, above = sum(len(own) + 1 for _, own in present), 0
    for number, (division, own) in enumerate(present, 1):
        axis = "" if number == 1 else str(number)
        top, bottom = 1 - (above + 1) / total, max(0.0, 1 - (above + 1 + len(own)) / total)
        above += len(own) + 1
        traces += _traces(own, shapes, marks, f"y{axis}")
        names = [kernel for kernel, _ in reversed(own)]
        layout[f"yaxis{axis}"] = {
            "type": "category", "domain": [bottom, top], "automargin": True, "categoryarray": names, "tickvals": names,
            "ticktext": [shortened(html.escape(name.partition("/")[2])) for name in names], "range": [-0.5, len(names) - 0.5],
            "showgrid": False, "ticks": "",
        }  # fmt: skip
        layout["annotations"].append(_note(f"<b>{division} kernels</b>", 0, top, "left"))
    layout["xaxis"] = across | {"anchor": "y" if len(present) == 1 else "y2"}
    layout["annotations"].append(_note(KEY, 1, 1 - 1 / total, "right"))
    layout["height"] = 230 + ROW_HEIGHT * total
    return {"data": traces, "layout": layout}


def _fastest(drawn: Sequence[Row]) -> Marks:
    """The largest speedup of each shape and division; where a shape has no baseline, the least time."""
    best: dict[tuple[str, bool], Row] = {}
    for row in drawn:
        place = (row["group"], bool(row["approximate"]))
        if row["status"] == "ok" and row["latency_s"] and (place not in best or _rank(row) > _rank(best[place])):
            best[place] = row
    return Marks({row["case"]: BEST_APPROXIMATE if row["approximate"] else BEST for row in best.values()})


def _rank(row: Row) -> tuple[float, float]:
    return (row["speedup"] or 0.0, -row["latency_s"])


def _kernels(drawn: Sequence[Row], *, approximate: bool) -> list[tuple[str, dict[str, Row]]]:
    """The kernels of a division, the one with the largest median speedup first, each with its row at each shape."""
    found: dict[str, dict[str, Row]] = {}
    for row in drawn:
        if bool(row["approximate"]) == approximate:
            found.setdefault(row["kernel"], {})[row["group"]] = row
    return sorted(found.items(), key=lambda item: -_middle(item[1]))


def _middle(own: Mapping[str, Row]) -> float:
    speedups = sorted(row["speedup"] for row in own.values() if row["status"] == "ok" and row["speedup"])
    return float(speedups[len(speedups) // 2]) if speedups else -1.0


def _traces(own: Sequence[tuple[str, Mapping[str, Row]]], shapes: Sequence[str], marks: Marks, axis: str) -> list[dict[str, Any]]:
    """Cells with a speedup, coloured by it, and those without, in grey."""
    cells = {(kernel, shape): _cell(rows.get(shape), marks) for kernel, rows in own for shape in shapes}
    kernels = [kernel for kernel, _ in own]
    tints = {place: _tint(rows[place[1]]) for kernel, rows in own for place in cells if place[0] == kernel and place[1] in rows}

    def trace(grey: bool, scale: list[list[Any]]) -> dict[str, Any]:
        shown = {place: cell for place, cell in cells.items() if (tints.get(place) is None) == grey}
        values = [[(tints.get((kernel, shape)) or 0.0) if (kernel, shape) in shown else None for shape in shapes] for kernel in kernels]
        return {
            "type": "heatmap", "x": list(shapes), "y": kernels, "z": values, "yaxis": axis, "zmin": -WIDEST, "zmax": WIDEST,
            "text": [[_text(shown.get((kernel, shape))) for shape in shapes] for kernel in kernels], "texttemplate": "%{text}",
            "hovertext": [[_hover(shown.get((kernel, shape))) for shape in shapes] for kernel in kernels],
            "hovertemplate": "%{hovertext}<extra></extra>", "colorscale": scale, "showscale": False, "xgap": 2, "ygap": 2,
            "textfont": {"size": 12, "color": "#1a1a1a"}, "showlegend": False,
        }  # fmt: skip

    return [trace(False, [[0, SLOWER], [0.5, EQUAL], [1, FASTER]]), trace(True, [[0, WITHOUT], [1, WITHOUT]])]


def _cell(row: Row | None, marks: Marks) -> Cell:
    return tables.speedup_cell(row, marks) if row else tables.Cell(text=UNPLANNED, title=UNPLANNED)


def _tint(row: Row) -> float | None:
    if row["status"] != "ok" or not row["speedup"]:
        return None
    return max(-WIDEST, min(WIDEST, math.log2(row["speedup"])))


def _text(cell: Cell | None) -> str:
    return html.escape(f"{cell.text} {cell.sign if cell.state == 'ok' else ''}".strip()) if cell else ""


def _hover(cell: Cell | None) -> str:
    return "<br>".join(html.escape(part) for part in cell.title.split("; ")) if cell else ""


def _shapes(drawn: Sequence[Row]) -> tuple[list[str], dict[str, Any]]:
    """The groups, and the axis that names them: by length and batch where these tell them apart, else by what differs in their labels."""
    firsts = {row["group"]: row for row in reversed(drawn)}
    sizes = {group: (row["batch"], row["seq_len"]) for group, row in firsts.items()}
    if len(set(sizes.values())) == len(sizes):
        shapes = sorted(sizes, key=lambda group: sizes[group])
        labels = [f"{sizes[group][1]}<br>batch {sizes[group][0]}" for group in shapes]
        title = "sequence length in tokens, and batch"
    else:
        told = {group: row["label"].split(" ") for group, row in firsts.items()}
        shapes = sorted(told, key=lambda group: (told[group][1:], sizes[group]))
        shared = set.intersection(*(set(words) for words in told.values()))
        labels = [_broken([word for word in told[group] if word not in shared]) for group in shapes]
        title = html.escape(f"shape ({' '.join(word for word in told[shapes[0]] if word in shared)})") if shared else "shape"
    axis = {"type": "category", "categoryarray": shapes, "tickvals": shapes, "ticktext": labels, "title": {"text": title}}
    return shapes, axis | {"range": [-0.5, len(shapes) - 0.5], "showgrid": False, "ticks": "", "automargin": True, "tickangle": 0}


def _broken(words: Sequence[str]) -> str:
    """Words in short lines; a long word is cut."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= LABEL_LENGTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "<br>".join(shortened(html.escape(line), LABEL_LENGTH + 6) for line in lines) or "shape"


def _note(text: str, x: float, y: float, anchor: str) -> dict[str, Any]:
    """A line just above a place on the paper."""
    place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": anchor, "yanchor": "bottom"}
    return place | {"text": text, "showarrow": False, "font": {"size": 12}}
