"""The page of several runs: their differences, and in each cell what each run measured of the same problem; one file, offline.

In the same dress as the report of a run, whose style, script and chart library it shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import shell, summary, tables, together_figures, together_tables, together_text, units
from .figures import looks_of
from .frame import replacing
from .names import short
from .shapes import titles, variants
from .summary import OPERATORS
from .together import Together, has_number, read
from .together_facts import facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .styles import Style
    from .together import Member, Row
    from .together_tables import Board

MOST_DRAWN = 12
"""Charts of one operator that stand open; the others are folded away below."""
MOST_OPEN = 3
"""Of more runs than these the cards show who leads, and fold away the other facts."""
SAVED = (
    "letter", "name", "created", "commit", "fingerprint", "same_problem", "kernel", "label", "device", "dtype", "direction", "batch",
    "seq_len", "protocol", "status", "reason", "latency_s", "latency_low_s", "latency_high_s", "interval_kind", "samples", "baseline",
    "speedup", "speedup_low", "speedup_high", "peak_bytes", "error_max_ratio", "error_relative_rms", "energy_j", "warnings",
)  # fmt: skip
"""The columns that can be saved from the page; `together.Together.frame` has more."""


@dataclass(frozen=True)
class Chart:
    """One figure and what stands beside it."""

    id: str
    title: str
    spoken: str
    """What a screen reader says instead of the picture."""
    dtype: str
    height: int
    """Pixels."""


@dataclass(frozen=True)
class Part:
    """One operator on the page."""

    operator: str
    heading: str
    takeaway: str
    boards: list[Board]
    charts: list[Chart]
    folded: list[Chart]
    legend: list[tuple[str, Style]] = field(default_factory=list)


def render(folders: Sequence[Path | str], out: Path | str, *, plain: bool = False) -> Path:
    """Read runs (see `together.read`) and write their page to `out`; its path. Raises what `together.read` raises, and OSError."""
    return write(read(folders), out, plain=plain)


def write(together: Together, out: Path | str, *, plain: bool = False) -> Path:
    """Write the page to `out`, making the folder that it lies in; its path. `plain` as in `page.render`."""
    out = Path(out)
    text = html(together, plain=plain)
    out.parent.mkdir(parents=True, exist_ok=True)
    return replacing(out, lambda path: path.write_text(text, encoding="utf-8"))


def html(together: Together, *, plain: bool = False) -> str:
    """The page as text."""
    drawing = _Drawing(together)
    parts = drawing.parts()  # before its figures are embedded
    numberless = together_tables.numberless(together)
    differences = facts([member.run for member in together.members])
    return shell.render(
        "together.html.j2",
        figures=drawing.figures,
        payloads={"table": {"columns": list(SAVED), "rows": [[row.get(name) for name in SAVED] for row in together.every_row()]}},
        styles=["together.css"],
        scripts=["together.js"],
        words={
            "count": units.count, "short": short, "states": tables.STATES, "dash": _dash,
            "grouped": together_tables.grouped,
        },
        plain=plain,
        together=together,
        subject=together_text.subject(together),
        headline=together_text.headline(together),
        notes=together_text.notes(together),
        cards=[_card(together, member) for member in together.members],
        folds_facts=len(together.members) > MOST_OPEN,
        has_dashes=together_figures.has_dashes(len(together.members)),
        differing=[fact for fact in differences if fact.differs],
        equal=[fact for fact in differences if not fact.differs],
        parts=parts,
        headings=together_tables.headings(together),
        listing=together_tables.listing(together),
        partial=together_text.partial(together),
        numberless=numberless,
        method=together_text.method(),
        options=summary.options(together.planned),
    )  # fmt: skip


class _Drawing:
    """The grids and charts of each operator; figures for the script."""

    def __init__(self, together: Together) -> None:
        self.together = together
        self.looks = looks_of(together.planned)
        self.figures: dict[str, Any] = {}
        """Id -> data and layout, as plain JSON values."""
        self._variants = variants(together.cases.values())

    def parts(self) -> list[Part]:
        boards = together_tables.boards(self.together)
        made = []
        for operator in together_text.operators(self.together):
            charts = self._charts(operator)
            drawn = {trace["meta"]["kernel"] for chart in charts for trace in self.figures[chart.id]["data"]}
            part = Part(
                operator,
                OPERATORS.get(operator, operator),
                together_text.takeaway(self.together, operator),
                [board for board in boards if board.grid.operator == operator],
                charts[:MOST_DRAWN],
                charts[MOST_DRAWN:],
                [(kernel, look) for kernel, look in self.looks.items() if kernel in drawn],
            )
            made.append(part)
        return made

    def _charts(self, operator: str) -> list[Chart]:
        own = [row for row in self.together.planned if row["operator"] == operator and row["group"] in self.together.shared]
        named, _ = titles(self._variants[row["case"]] for row in own)
        panels: dict[tuple[str, int], list[Row]] = {}
        for row in own:
            panels.setdefault((named[self._variants[row["case"]]], row["batch"]), []).append(row)
        charts = []
        for number, ((variant, batch), inside) in enumerate(panels.items()):
            groups = {row["group"] for row in inside}
            asked = [(member, self._measured(member, inside)) for member in self.together.members if groups & member.groups]
            drawn = [(member, measured) for member, measured in asked if measured]
            lengths = sorted({row["seq_len"] for _, measured in drawn for row in measured})
            if lengths:
                title = [variant] * (len(named) > 1) + [f"batch {batch}"] + [f"length {lengths[0]}"] * (len(lengths) == 1)
                lacking = [member.letter for member, measured in asked if not measured]
                title += [f"no number in {units.listed(lacking)}"] * bool(lacking)
                kernels = units.count(len({row["kernel"] for _, measured in drawn for row in measured}), "kernel")
                spoken = f"Latency of {kernels} in {units.count(len(drawn), 'run')}: {' · '.join(title)}"
                figure = together_figures.over_runs(drawn, self.looks, dashed=together_figures.has_dashes(len(self.together.members)))
                height = together_figures.height(figure, len(drawn))
                chart = Chart(f"latency-{operator}-{number}", " · ".join(title), spoken, inside[0]["dtype"], height)
                self.figures[chart.id] = figure
                charts.append(chart)
        return charts

    def _measured(self, member: Member, planned: Sequence[Row]) -> list[Row]:
        found = [self.together.row(member, row["case"]) for row in planned]
        return [row for row in found if has_number(row)]


def _card(together: Together, member: Member) -> dict[str, Any]:
    """What stands on the card of a run."""
    told = {name: together_text.led(together, member, name) for name in together_text.operators(together)}
    led = [(OPERATORS.get(name, name), leader) for name, leader in told.items() if leader]
    rows_ = list(member.rows.values())
    return {"member": member, "lines": together_text.outcome(together, member), "led": led, "coverage": summary.coverage(rows_)}


def _dash(member: Member) -> str:
    """The dash of a run as an SVG stroke-dasharray."""
    return together_figures.DASHES[together_figures.dash_of(member)]
