"""A figure that is read away from the page: with a title that says what, where and when, a legend, and its own white paper."""

from __future__ import annotations

import html
import textwrap
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .figures import Figure

WIDTH, HEIGHT = 1000, 600
"""Pixels, before a picture is scaled."""
FONT = "Arial, Liberation Sans, Helvetica, DejaVu Sans, sans-serif"
INK, FAINT, GRID, PAPER = "#1a1a1a", "#4d4d4d", "#e3e3e3", "#ffffff"
NAME_LENGTH = 36
TITLE_LENGTH, LINE_LENGTH, MOST_LINES = 95, 135, 3
ENTRY_HEIGHT = 20
"""Of a name in the legend."""
AXIS = {"gridcolor": GRID, "linecolor": FAINT, "zerolinecolor": GRID, "ticks": "outside", "tickcolor": FAINT, "automargin": True}


def standalone(figure: Figure, title: str, subtitles: Sequence[str] = ()) -> Figure:
    """The figure with a title and lines below it, which are plain texts, a legend of its kernels, and light colours.

    What the figure says of itself already stays as it is; the original is not changed. The height grows where a legend, or the
    figure's own height, needs it.
    """
    made = deepcopy(figure)
    layout = made["layout"]
    lines = [line for subtitle in subtitles for line in _wrapped(subtitle)][:MOST_LINES]
    entries = _name(made)
    top = 60 + 18 * len(lines)
    layout["title"] = {
        "text": html.escape(_cut(title, TITLE_LENGTH)),
        "subtitle": {"text": "<br>".join(html.escape(line) for line in lines), "font": {"size": 13, "color": FAINT}},
        "font": {"size": 18, "color": INK},
        "x": 0.012, "xref": "container", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14},
    }  # fmt: skip
    layout["width"] = WIDTH
    layout["height"] = max(HEIGHT, int(layout.get("height", 0)), top + 90 + ENTRY_HEIGHT * entries)
    layout["font"] = {"family": FONT, "size": 13, "color": INK}
    layout["margin"] = {"l": 70, "r": 24, "t": top, "b": 64}
    layout["paper_bgcolor"] = layout["plot_bgcolor"] = PAPER
    layout["showlegend"] = entries > 0
    layout["legend"] = {"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top", "bgcolor": PAPER, "font": {"size": 12}}
    for name in [name for name in layout if name.startswith(("xaxis", "yaxis"))] or ["xaxis", "yaxis"]:
        layout[name] = AXIS | layout.get(name, {})
        if "title" in layout[name]:
            layout[name]["title"] = {"standoff": 10} | layout[name]["title"] | {"font": {"size": 14}}
    return made


def shortened(text: str, length: int = NAME_LENGTH) -> str:
    """An escaped text of at most so many characters, escaped again."""
    return html.escape(_cut(html.unescape(text), length))


def _name(figure: Figure) -> int:
    """Shorten the names of the traces and let each stand in the legend once; how many stand there.

    None does where the names stand along an axis already.
    """
    along = "category" in {figure["layout"].get(axis, {}).get("type") for axis in ("xaxis", "yaxis")}
    seen: set[str] = set()
    for number, trace in enumerate(figure["data"]):
        trace["uid"] = str(number)  # else it is drawn by lot, and stands in files
        name = trace.get("name")
        if name:
            trace["name"] = shortened(name)
        trace["showlegend"] = bool(name) and name not in seen and not along and trace.get("showlegend", True)
        seen |= {name} if trace["showlegend"] else set()
    return len(seen)


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, LINE_LENGTH, max_lines=2, placeholder=" …")


def _cut(text: str, length: int) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def described(*facts: Any) -> str:
    """`a · b`, of the facts that there are."""
    return " · ".join(str(fact) for fact in facts if fact)
