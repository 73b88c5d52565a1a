"""The report: one HTML file that opens offline and holds everything, rendered from a run folder.

The first screen needs no script. Charts are drawn by plotly's own bundle, embedded once; all other data is inert JSON, and a
Content-Security-Policy forbids the page every connection.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import method, shell, summary, tables, units
from .columns import meaning
from .frame import Frames, load, replacing, rows
from .sections import Drawing
from .shapes import SHORT_DTYPES
from .summary import short

if TYPE_CHECKING:
    from collections.abc import Sequence


def render(folder: Path | str, *, plain: bool = False) -> Path:
    """Write report.html into a run folder; its path. `plain` embeds plotly uncompressed, for browsers without DecompressionStream."""
    folder = Path(folder)
    text = html(load(folder), plain=plain)
    return replacing(folder / "report.html", lambda path: path.write_text(text, encoding="utf-8"))


def html(frames: Frames, *, plain: bool = False) -> str:
    """The page as text."""
    drawing = Drawing(frames)
    sections = drawing.sections()  # before its figures are embedded
    return shell.render(
        "page.html.j2",
        figures=drawing.figures,
        payloads={"csv": frames.results.to_csv(index=False)},
        words={
            "count": units.count,
            "short": short,
            "meaning": meaning,
            "states": tables.STATES,
            "operators": summary.OPERATORS,
        },
        plain=plain,
        sections=sections,
        columns=list(frames.results.columns),
        **_first_screen(frames, drawing),
        **_listings(frames, drawing.rows),
    )


def _first_screen(frames: Frames, drawing: Drawing) -> dict[str, Any]:
    run, results, contests = frames.run, drawing.rows, rows(frames.winners)
    cell = partial(tables.speedup_cell, marks=tables.Marks.of(results, frames.winners))
    return {
        "run": run,
        "device": summary.machine(run),
        "date": summary.date(run),
        "subject": summary.subject(run, results),
        "headline": summary.headline(results, contests),
        "coverage": summary.coverage(results),
        "answers": summary.answers(results, contests),
        "notes": summary.notes(run, results),
        "warned": tables.warned(results, run.measurements),
        "overview": [tables.fill(grid, cell) for grid in drawing.grids],
        "looks": drawing.looks,
        "options": _options(results),
    }


def _listings(frames: Frames, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tables of single cases; a column that no case has a value for is left out."""
    listing = tables.listing(results)
    kept = [index for index in range(len(tables.LISTED)) if any(cells[index][0] for _, cells in listing)]
    return {
        "headings": [tables.LISTED[index][:2] for index in kept],
        "listing": [(row, [cells[index] for index in kept]) for row, cells in listing],
        "numberless": tables.numberless(results),
        "energy": summary.energy(results),
        "method": method.described(frames.run, results),
        "environment": method.machine(frames.run),
    }


def _options(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What the page can be filtered by: value -> word, where there is more than one to choose from."""
    offered = {
        "operator": {row["operator"]: summary.OPERATORS.get(row["operator"], row["operator"]) for row in results},
        "kernel": {name: name for name in sorted({short(row["kernel"]) for row in results})},
        "dtype": {row["dtype"]: SHORT_DTYPES.get(row["dtype"], row["dtype"]) for row in results},
    }
    return {name: values for name, values in offered.items() if len(values) > 1}
