"""The chart sections of the page: what is drawn, in which small panels, and the table that says the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from . import crossovers, roofline, summary, tables, trade, units
from .figures import QUANTITIES, Figure, Quantity, Row, drawable, error_of, looks_of, panel
from .frame import Frames, rows
from .shapes import SHORT_DTYPES, grids, titles, variants
from .summary import OPERATORS
from .tables import Listing
from .trade_figures import speed_against_error, speedup_against_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .styles import Style
    from .tables import Cell


SHORT = {"latency": "Latency", "share": "Share of limit", "memory": "Memory", "error": "Error"}
"""What the navigation calls a section with a long heading."""
MOST_CROSSOVERS = 24
"""So many are drawn of one operator …"""
FEW_CROSSOVERS = 6
"""… or so many of other pairs, where the fastest kernel stays the same."""


@dataclass(frozen=True)
class Chart:
    """One figure and what stands beside it."""

    id: str
    """Its key in Drawing.figures."""
    title: str
    spoken: str
    """What a screen reader says instead of the picture."""
    dtype: str


@dataclass
class Block:
    """The charts and tables of one operator in one section."""

    operator: str
    takeaway: str
    shown: str
    """The texts, in Drawing.shown, that its table kernel × shape has; empty where there is no such table."""
    charts: list[Chart] = field(default_factory=list)
    legend: list[tuple[str, Style]] = field(default_factory=list)
    choice: list[Chart] = field(default_factory=list)
    """Charts of which the reader picks one at a time."""
    table: str = ""
    """Its key in Drawing.listings: another table that says what the charts show."""
    caption: str = ""
    """What that table is."""
    choice_label: str = "Shape"
    spoken: str = ""
    """What is said of a chosen chart, before its title."""


@dataclass
class Section:
    """One heading of the page."""

    id: str
    heading: str
    takeaway: str
    blocks: list[Block]
    short: str = ""
    """What the navigation calls it; empty for its heading."""


class Drawing:
    """All charts of one run: sections for the template, figures for the script."""

    def __init__(self, frames: Frames) -> None:
        self.rows = rows(frames.results)
        self.variants = variants(frames.run.cases)
        self.grids = grids(self.rows, self.variants)
        self.looks = looks_of(self.rows)
        self.run = frames.run
        self.figures: dict[str, Any] = {}
        """Id -> data and layout, as plain JSON values."""
        self.shown: dict[str, Callable[[Row], Cell]] = {}
        """Name -> the cell of each row in the table of one quantity."""
        self.listings: dict[str, Listing] = {}
        """Name -> another table."""

    def sections(self) -> list[Section]:
        """Every section that this run has anything for; its figures are in `figures` afterwards."""
        made = [
            self._section("latency", "Latency against sequence length", "Lower is better; both axes are logarithmic."),
            self._section("share", "Share of the machine's limit", summary.share(self.rows)),
            self._roofline(),
            self._crossovers(),
            self._section("memory", "Peak memory", "Bytes allocated during one call above what was alive before it; lower is better."),
            self._errors(),
        ]
        for name, heading in (("energy", "Energy"), ("power", "Power")):
            if self._any(QUANTITIES[name]):
                made.append(self._section(name, heading, summary.energy(self.rows)))
        return [section for section in made if section.blocks]

    def _section(self, name: str, heading: str, takeaway: str) -> Section:
        quantity = QUANTITIES[name]
        sentences = {} if name == "share" else summary.extreme(self.rows, quantity.column)
        self.shown[name] = partial(tables.quantity_cell, quantity=quantity)
        measured = self._operators(lambda row: row[quantity.column] is not None)
        blocks = [Block(operator, sentences.get(operator, ""), name) for operator in measured]
        for block in blocks:
            self._draw_panels(block, name, quantity)
        return Section(name, heading, takeaway, blocks, SHORT.get(name, ""))

    def _roofline(self) -> Section:
        """Rates under what the machine was measured to do, one chart for each data type."""
        blocks = []
        for operator in self._operators(lambda row: row["limit_s"] is not None):
            block = Block(operator, "", "", caption="the numbers as a table, closest to the limit first")
            block.table = f"roofline-{operator}"
            dtypes = self._by(operator, lambda row: row["dtype"], lambda row: row["limit_s"] is not None)
            said, listed = [], []
            for number, (dtype, own) in enumerate(dtypes.items()):
                word = SHORT_DTYPES.get(dtype, dtype)
                if figure := roofline.roofline(own, self.run.ceilings, self.looks):
                    title = f"{OPERATORS.get(operator, operator)} · {word}"
                    spoken = f"Roofline of {units.count(len({row['kernel'] for row in own}), 'kernel')}, {title}"
                    self._add(block, Chart(f"roofline-{operator}-{number}", title, spoken, dtype), figure, own)
                named = len(dtypes) > 1
                said.append(f"{word}: " * named + roofline.takeaway(own, self.run.ceilings))
                listed.append((word if named else "", roofline.rows(own, self.run.ceilings)))
            block.takeaway = " ".join(said)
            self.listings[block.table] = Listing("roofline", roofline.HEADINGS, listed)
            blocks.append(block)
        takeaway = "Rate of the exact problem over its arithmetic intensity, below what this machine was measured to do; higher is better."
        return Section("roofline", "Roofline", takeaway, blocks)

    def _crossovers(self) -> Section:
        """Where one kernel overtakes another; drawn is where the winner changes, the table has all."""
        found = crossovers.read(self.run)
        blocks = []
        for operator in dict.fromkeys(one.row["operator"] for one in found):
            own = [one for one in found if one.row["operator"] == operator]
            block = Block(operator, crossovers.takeaway(own), "", caption="every crossover as a table", table=f"crossovers-{operator}")
            drawn = [one for one in own if one.row["leads"]][:MOST_CROSSOVERS] or own[:FEW_CROSSOVERS]
            for number, one in enumerate(drawn):
                title = crossovers.title(one.row).partition(" · ")[2]  # without the operator
                chart = Chart(f"crossover-{operator}-{number}", title, f"Ratio of times against length: {title}", one.row["dtype"])
                self.figures[chart.id] = crossovers.figure(one, self.looks)
                block.charts.append(chart)
            listed = [({"case": row["cases"].split()[0]}, cells) for row, cells in crossovers.lines(own)]
            self.listings[block.table] = Listing("crossovers", crossovers.HEADINGS, [("", listed)], of_one_kernel=False)
            blocks.append(block)
        takeaway = "From which length on one kernel is faster than another beyond noise, with its interval."
        return Section("crossovers", "Crossover lengths", takeaway, blocks, "Crossovers")

    def _errors(self) -> Section:
        """Speed against error: what approximations gain and lose, then one shape at a time, that of most kernels first."""
        blocks = []
        self.shown["error"] = tables.error_cell
        for operator in self._operators(lambda row: error_of(row) is not None):
            block = Block(operator, "", "error", spoken="Latency against error at")
            self._draw_trade(block)
            groups = self._by(operator, lambda row: row["group"], lambda row: bool(row["latency_s"] and error_of(row)))
            for number, own in enumerate(sorted(groups.values(), key=lambda own: (-len(own), -own[0]["flops"]))):
                spoken = f"Latency against error of {units.count(len(own), 'kernel')} at {own[0]['label']}"
                chart = Chart(f"error-{operator}-{number}", own[0]["label"], spoken, own[0]["dtype"])
                self._add(block, chart, speed_against_error(own, self.looks), own, block.choice)
            block.choice_label = "Any one shape, as latency" if block.charts else "Shape"
            blocks.append(block)
        heading = "The trade: speed against error" if any(block.table for block in blocks) else "Speed against error"
        return Section("error", heading, summary.accuracy(self.rows), blocks, SHORT["error"])

    def _draw_trade(self, block: Block) -> None:
        """Small panels and a table of what approximate kernels gain and lose, where there are any."""
        own = [row for row in self.rows if row["operator"] == block.operator]
        drawn = trade.panels(own)
        if not drawn:
            return
        block.takeaway = trade.takeaway(drawn)
        block.table, block.caption = f"trade-{block.operator}", "speedups and errors as a table, at every shape"
        self.listings[block.table] = trade.listing(own)
        every = [row for one in drawn for row in one.rows]
        for number, one in enumerate(drawn):
            spoken = f"Speedup against error of {units.count(len(one.rows), 'kernel')}: {one.title}"
            chart = Chart(f"trade-{block.operator}-{number}", one.title, spoken, one.rows[0]["dtype"])
            self._add(block, chart, speedup_against_error(one.rows, every, self.looks), one.rows)

    def _draw_panels(self, block: Block, name: str, quantity: Quantity) -> None:
        own = [row for row in self.rows if row["operator"] == block.operator]
        named, _ = titles(self.variants[row["case"]] for row in own)
        panels = self._by(
            block.operator, lambda row: (named[self.variants[row["case"]]], row["batch"]), lambda row: row[quantity.column] is not None
        )
        for number, ((variant, batch), inside) in enumerate(panels.items()):
            lengths = sorted({row["seq_len"] for row in inside})
            parts = [variant] if len(named) > 1 else []
            parts += [f"batch {batch}", *([f"length {lengths[0]}"] if len(lengths) == 1 else [])]
            title = " · ".join(parts)
            spoken = f"{quantity.title} of {units.count(len({row['kernel'] for row in inside}), 'kernel')}: {title}"
            figure = panel(inside, quantity, self.looks)
            if drawable(inside, quantity):
                self._add(block, Chart(f"{name}-{block.operator}-{number}", title, spoken, inside[0]["dtype"]), figure, inside)

    def _add(self, block: Block, chart: Chart, figure: Figure, drawn: Sequence[Row], place: list[Chart] | None = None) -> None:
        """Put a figure on the page; its legend becomes part of the block's."""
        self.figures[chart.id] = figure
        (block.charts if place is None else place).append(chart)
        named = {row["kernel"] for row in drawn} | {kernel for kernel, _ in block.legend}
        block.legend = [(kernel, look) for kernel, look in self.looks.items() if kernel in named]

    def _operators(self, has: Callable[[Row], bool]) -> list[str]:
        return list(dict.fromkeys(row["operator"] for row in self.rows if row["status"] == "ok" and has(row)))

    def _by(self, operator: str, key: Callable[[Row], Any], has: Callable[[Row], bool]) -> dict[Any, list[Row]]:
        found: dict[Any, list[Row]] = {}
        for row in self.rows:
            if row["operator"] == operator and row["status"] == "ok" and has(row):
                found.setdefault(key(row), []).append(row)
        return found

    def _any(self, quantity: Quantity) -> bool:
        return any(row[quantity.column] is not None for row in self.rows if row["status"] == "ok")
