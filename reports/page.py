"""The report: one HTML file that opens offline and holds everything, rendered from a run folder.

The first screen needs no script. Charts are drawn by plotly's own bundle, embedded once; all other data is inert JSON, and a
Content-Security-Policy forbids the page every connection.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import answers, method, payload, shell, summary, tables, units
from .columns import meaning
from .frame import Frames, load, replacing, rows
from .names import short
from .sections import Drawing

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
    cell = partial(tables.speedup_cell, marks=tables.Marks.of(drawing.rows, frames.winners))
    overview = [tables.fill(grid, cell) for grid in drawing.grids]
    return shell.render(
        "page.html.j2",
        figures=drawing.figures,
        payloads=_payloads(frames, drawing, overview),
        styles=["report.css"],
        scripts=["report.js", "case.js"],
        words={
            "count": units.count,
            "short": short,
            "meaning": meaning,
            "states": tables.STATES,
            "operators": summary.OPERATORS,
        },
        plain=plain,
        sections=sections,
        overview=overview,
        columns=list(frames.results.columns),
        **_first_screen(frames, drawing.rows),
        **_listings(frames, drawing.rows),
    )


def _payloads(frames: Frames, drawing: Drawing, overview: Sequence[tables.Table]) -> dict[str, Any]:
    """What the page's script reads: "run" at once, "details" when a case is opened."""
    places = {row["case"]: number for number, row in enumerate(drawing.rows)}
    run = {
        "columns": payload.results(frames.results),
        "meanings": {name: meaning(name) for name in frames.results.columns},
        "cases": payload.listing(drawing.rows),
        "grids": [payload.grid(table, places) for table in overview],
        "shown": {name: payload.texts(drawing.rows, cell) for name, cell in drawing.shown.items()},
        "listings": {name: payload.table(listing, places) for name, listing in drawing.listings.items()},
        "file": frames.run.folder,
    }
    return {"run": run, "details": payload.details(frames.run, drawing.rows)}


def _first_screen(frames: Frames, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    run, contests = frames.run, rows(frames.winners)
    return {
        "run": run,
        "device": summary.machine(run),
        "date": summary.date(run),
        "subject": summary.subject(run, results),
        "headline": answers.headline(results, contests),
        "coverage": summary.coverage(results),
        "trust": summary.trust(results),
        "answers": answers.answers(results, contests),
        "notes": [*summary.notes(run, results), *summary.rivals(results, contests)],
        "warned": tables.warned(results, run.measurements),
        "options": summary.options(results),
    }


def _listings(frames: Frames, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "measured": sum(row["status"] == "ok" for row in results),
        "numberless": tables.numberless(results),
        "energy": summary.energy(results),
        "left_out": payload.left_out(frames.run),
        "method": method.described(frames.run, results),
        "environment": method.machine(frames.run),
    }
