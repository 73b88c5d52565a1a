"""One colour, marker and dash per kernel, the same in every chart of a page; colour never carries meaning alone.

The colours are those of Okabe and Ito (safe for colour-blind readers), shifted in lightness where they would have less
than 3:1 contrast against a light or a dark page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LIGHT_PAPER = "#ffffff"
DARK_PAPER = "#171a1f"


@dataclass(frozen=True)
class Style:
    """How one kernel is drawn."""

    light: str
    """Colour on a light page."""
    dark: str
    symbol: str
    """Plotly's name; approximate kernels have the hollow form."""
    dash: str

    @property
    def hollow(self) -> bool:
        return self.symbol.endswith("-open")

    @property
    def path(self) -> str:
        """The marker as an SVG path around (0, 0), for legends outside plotly."""
        return PATHS[self.symbol.removesuffix("-open")]

    @property
    def dashes(self) -> str:
        """The dash as an SVG stroke-dasharray."""
        return {"solid": "none", "dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3"}[self.dash]


PATHS = {
    "circle": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
    "square": "M-4,-4H4V4H-4Z",
    "diamond": "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
    "triangle-up": "M0,-5L5,4H-5Z",
    "triangle-down": "M0,5L5,-4H-5Z",
    "cross": "M-1.8,-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z",
    "pentagon": "M0,-5L4.8,-1.5L2.9,4.1H-2.9L-4.8,-1.5Z",
    "hexagon": "M-4.3,-2.5L0,-5L4.3,-2.5V2.5L0,5L-4.3,2.5Z",
    "x": "M-4.8,-2.5L-2.5,-4.8L0,-2.3L2.5,-4.8L4.8,-2.5L2.3,0L4.8,2.5L2.5,4.8L0,2.3L-2.5,4.8L-4.8,2.5L-2.3,0Z",
    "star": "M0,-5.5L1.4,-1.8L5.3,-1.7L2.2,0.7L3.3,4.5L0,2.3L-3.3,4.5L-2.2,0.7L-5.3,-1.7L-1.4,-1.8Z",
    "bowtie": "M-5,-4L0,-0.5L5,-4V4L0,0.5L-5,4Z",
    "hourglass": "M-4,-5H4L0.5,0L4,5H-4L-0.5,0Z",
}

BLACK, BLUE, VERMILLION, GREEN = ("#2b2b2b", "#e4e4e4"), ("#0072b2", "#2f8fd0"), ("#d55e00", "#e8741a"), ("#00875f", "#18b088")
SKY, ORANGE, PURPLE, YELLOW = ("#2f8fc4", "#56b4e9"), ("#b37a00", "#e69f00"), ("#b8608f", "#cc79a7"), ("#857c00", "#f0e442")
GREY = ("#6f6f6f", "#9c9c9c")

FAMILIES: dict[str, tuple[tuple[str, str], str]] = {
    "eager": (BLACK, "circle"),
    "sdpa": (BLUE, "square"),
    "compiled": (VERMILLION, "diamond"),
    "fused": (GREEN, "triangle-up"),
    "onnxrt": (SKY, "triangle-down"),
    "int8": (ORANGE, "circle"),
    "pruned": (PURPLE, "square"),
    "int8_cache": (YELLOW, "triangle-down"),
    "block_sparse": (GREEN, "diamond"),
    "sinks": (VERMILLION, "triangle-up"),
    "flex": (YELLOW, "pentagon"),
    "torch": (GREY, "hexagon"),
    "unpadded": (BLUE, "diamond"),
}
# families that this module has never heard of, in order of appearance
STRANGERS = [(PURPLE, "cross"), (GREEN, "cross"), (ORANGE, "cross"), (SKY, "cross"), (VERMILLION, "cross"), (GREY, "cross")]
SIBLING_SYMBOLS = ["x", "star", "bowtie", "hourglass", "cross"]
DASHES = ["solid", "dash", "dot", "dashdot"]


def styles(kernels: Iterable[tuple[str, str, bool]]) -> dict[str, Style]:
    """Kernel name -> Style, for (name, family, approximate) of every kernel that will be drawn on a page.

    Kernels of one family share its colour; the n-th has a marker and a dash of its own. A kernel of another operator with
    the same last part of its name is drawn the same.
    """
    known = sorted(
        {(family, name.partition("/")[2]) for name, family, _ in kernels}, key=lambda pair: (pair[0], pair[1] != pair[0], pair[1])
    )
    strangers = dict.fromkeys(family for family, _ in known if family not in FAMILIES)
    members: dict[str, list[str]] = {}
    for family, short in known:
        members.setdefault(family, []).append(short)
    looks = FAMILIES | {family: STRANGERS[number % len(STRANGERS)] for number, family in enumerate(strangers)}
    drawn = {}
    for name, family, approximate in kernels:
        (light, dark), symbol = looks[family]
        place = members[family].index(name.partition("/")[2])
        symbol = symbol if place == 0 else SIBLING_SYMBOLS[(place - 1) % len(SIBLING_SYMBOLS)]
        drawn[name] = Style(light, dark, symbol + "-open" * approximate, DASHES[place % len(DASHES)])
    return drawn
