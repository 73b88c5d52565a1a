"""A comparison as one HTML page that opens offline, in the dress of the report: what came out, what was compared, cell by cell.

The first screen needs no script. What a user wrote is escaped, data are inert JSON, and a Content-Security-Policy forbids the
page every connection.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kerneldyno.bench.verdict import EXIT_FINE, WORDS, Outcome, Verdict, worst_first

from . import ratios, shell, units, verdicts
from .frame import replacing
from .summary import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .figures import Figure

ROW_PIXELS = 38
"""Height of one cell in the plot of ratios: two lines of text."""
MOST_DRAWN = 60
"""Cells in one plot; the table has all."""
COLUMNS = (
    ("verdict", ""),
    ("kernel and problem", ""),
    ("change", "%"),
    ("ratio", "95 % interval"),
    ("time", "base → candidate"),
    ("memory", "peak of one call"),
    ("errors", "of the output"),
    ("energy", "per call"),
    ("power", "to see +5 %"),
    ("why", ""),
)


def render(outcome: Outcome, path: Path | str, *, plain: bool = False) -> Path:
    """Write the page to `path`, replacing what is there; the path. `plain` embeds plotly uncompressed, for old browsers."""
    text = page(outcome, plain=plain)
    return replacing(Path(path), lambda partial: partial.write_text(text, encoding="utf-8"))


def page(outcome: Outcome, *, plain: bool = False) -> str:
    """The page as text."""
    ordered = worst_first(outcome.verdicts)
    figures = _figures(ordered)
    columns = _kept(ordered)
    verdict = msgspec.json.decode(msgspec.json.encode(outcome))
    return shell.render(
        "comparison.html.j2",
        figures=figures,
        payloads={"csv": _csv(ordered), "verdict": verdict},
        styles=["comparison.css"],
        scripts=["comparison.js"],
        words={"count": units.count, "operators": OPERATORS, "words": verdicts, "signs": verdicts.SIGNS},
        plain=plain,
        outcome=outcome,
        failed=outcome.exit_code != EXIT_FINE,
        cells=[(number, verdict, _row(verdict)) for number, verdict in enumerate(ordered)],
        headings=[(index, *COLUMNS[index]) for index in columns],
        columns=columns,
        options=_options(ordered),
        forests=_forests(ordered),
        drawn=set(figures),
        terms=verdicts.decided(outcome.terms),
    )


def _figures(ordered: Sequence[Verdict]) -> dict[str, Figure]:
    """Id -> figure: ratios of each operator, processes of each cell."""
    own = {f"ratios-{number}": ratios.forest(cells[:MOST_DRAWN]) for number, (_, cells) in enumerate(_by_operator(ordered).items())}
    for number, verdict in enumerate(ordered):
        if verdict.latency and ratios.drawable(verdict.latency) and verdict.latency.differences:
            own[f"processes-{number}"] = ratios.processes(verdict.latency, verdict.latency_word or verdict.word)
    return own


def _by_operator(ordered: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """The cells that can be drawn."""
    found: dict[str, list[Verdict]] = {}
    for verdict in ordered:
        if ratios.drawable(verdict.latency):
            found.setdefault(verdict.operator, []).append(verdict)
    return found


def _forests(ordered: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What the template needs to draw one plot of ratios, operator by operator."""
    drawn = []
    for number, (operator, cells) in enumerate(_by_operator(ordered).items()):
        beyond = sum(abs(cell.latency.ratio - 1) > cell.latency.margin for cell in cells if cell.latency)
        takeaway = f"{beyond} of {units.count(len(cells), 'ratio')} {'lies' if beyond == 1 else 'lie'} outside the margin."
        if len(cells) > MOST_DRAWN:
            takeaway += f" Drawn are {MOST_DRAWN}, worst first; the table has all."
        height = 60 + ROW_PIXELS * min(len(cells), MOST_DRAWN)
        drawn.append({"id": f"ratios-{number}", "operator": operator, "takeaway": takeaway, "height": height, "cells": cells})
    return drawn


def _row(verdict: Verdict) -> list[tuple[str, object]]:
    """(text, key to sort by) for each of COLUMNS; the empty text where there is nothing to say."""
    latency, changes = verdict.latency, verdict.changes
    change = latency.ratio - 1 if latency else ""
    shown: list[tuple[str, object]] = [
        (verdict.word, WORDS.index(verdict.word)),
        (verdicts.place(verdict), verdicts.place(verdict)),
        (verdicts.percent(latency.ratio) if latency else "", change),
        (verdicts.number(latency), latency.ratio if latency else ""),
        (verdicts.times(latency), latency.other_s if latency else ""),
    ]
    for name in verdicts.ORDERS:
        own = changes.get(name)
        word = f" {own.word}" if own and own.word in {"REGRESSED", "IMPROVED"} else ""
        value = own.candidate if own else None
        shown.append((verdicts.sides(own) + word, "" if value is None else value))
    shown.append((units.quantity(verdict.power, "share", 2), "" if verdict.power is None else verdict.power))
    return [*shown, ("; ".join([verdict.reason, *verdicts.remarks(verdict)[: 1 if verdict.advisory else 0]]), verdict.reason)]


def _kept(ordered: Sequence[Verdict]) -> list[int]:
    """The columns that some cell has something in."""
    texts = [[text for text, _ in _row(verdict)] for verdict in ordered]
    return [index for index in range(len(COLUMNS)) if index < 2 or any(row[index] for row in texts)]


def _options(ordered: Sequence[Verdict]) -> dict[str, dict[str, str]]:
    """What the page can be filtered by: value -> word, where there is more than one to choose from."""
    offered: dict[str, dict[str, str]] = {
        "word": {word: word for word in WORDS if any(verdict.word == word for verdict in ordered)},
        "operator": {verdict.operator: OPERATORS.get(verdict.operator, verdict.operator) for verdict in ordered},
        "kernel": {name: name for name in sorted({verdict.kernel for verdict in ordered})},
    }
    return {name: values for name, values in offered.items() if len(values) > 1}


def _csv(ordered: Sequence[Verdict]) -> str:
    """The cells as a table for other programs: SI units, nothing for what was not measured."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    names = ("ratio", "low", "high", "spread", "processes", "margin", "base_s", "other_s")
    sides = [f"{name}_{place}" for name in verdicts.ORDERS for place in ("base", "candidate")]
    writer.writerow(["word", "fails", "operator", "kernel", "base_kernel", "label", "device", *names, *sides, "power", "reason"])
    for one in ordered:
        told = [one.word, one.fails, one.operator, one.kernel, one.base_kernel, one.label, one.device]
        times = [getattr(one.latency, name) if one.latency else "" for name in names]
        others = [getattr(one.changes.get(name), place, None) for name in verdicts.ORDERS for place in ("base", "candidate")]
        writer.writerow([*told, *times, *others, one.power, one.reason])
    return written.getvalue()
