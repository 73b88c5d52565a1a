"""Figures of attention maps as plain data that plotly draws: the weights, and the difference of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .figures import Figure, figure_of

BLUE, ORANGE = "47, 143, 208", "232, 116, 26"
"""Both are seen on a light and on a dark page, through which a weight of 0 lets it shine."""
STEPS = 8
Cells = Sequence[Sequence[float]]


def weights(cells: Cells, most: float, *, query_cell: int, key_cell: int) -> Figure:
    """A map, coloured by the square root of the weights up to `most`: small ones would not show otherwise."""
    scale = [[step / STEPS, f"rgba({BLUE}, {(step / STEPS) ** 0.5:.3f})"] for step in range(STEPS + 1)]
    return _map(cells, scale, (0.0, most), "%{z:.3%}", query_cell=query_cell, key_cell=key_cell)


def difference(exact: Cells, found: Cells, *, query_cell: int, key_cell: int) -> Figure:
    """What a kernel gives more (blue) or less (orange) than it should."""
    apart = [
        [float(f"{mine - right:.3g}") for right, mine in zip(exact_row, row, strict=True)]
        for exact_row, row in zip(exact, found, strict=True)
    ]
    most = max(max(abs(value) for value in row) for row in apart) or 1e-9
    below = [[0.5 - step / STEPS / 2, f"rgba({ORANGE}, {(step / STEPS) ** 0.5:.3f})"] for step in range(STEPS, 0, -1)]
    above = [[0.5 + step / STEPS / 2, f"rgba({BLUE}, {(step / STEPS) ** 0.5:.3f})"] for step in range(STEPS + 1)]
    return _map(apart, below + above, (-most, most), "%{z:+.3%}", query_cell=query_cell, key_cell=key_cell)


def _map(cells: Cells, scale: list[list[Any]], span: tuple[float, float], number: str, *, query_cell: int, key_cell: int) -> Figure:
    """Queries from top to bottom, keys from left to right."""
    several = query_cell > 1 or key_cell > 1
    what = f"{query_cell} queries from %{{y}}, {key_cell} keys from %{{x}}" if several else "query %{y}, key %{x}"
    trace = {
        "type": "heatmap",
        "z": [list(row) for row in cells],
        "x0": 0,
        "dx": key_cell,
        "y0": 0,
        "dy": query_cell,
        "zmin": span[0],
        "zmax": span[1],
        "colorscale": scale,
        "colorbar": {"thickness": 8, "len": 1, "tickformat": ".2~%", "outlinewidth": 0, "tickfont": {"size": 10}},
        "hovertemplate": f"{what}: {number}<extra></extra>",
        "meta": {"kernel": "", "light": "", "dark": ""},
    }
    figure = figure_of([trace], {"title": {"text": "key"}, "showgrid": False, "zeroline": False}, {"title": {"text": "query"}})
    figure["layout"]["yaxis"] |= {"autorange": "reversed", "showgrid": False, "zeroline": False, "automargin": True}
    return figure
