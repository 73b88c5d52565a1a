"""What the page's tables show: cells with a text, a sign and an explanation, never a blank that could be read as zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import units
from .figures import Quantity, believed, error_of
from .frame import rows

if TYPE_CHECKING:
    import pandas as pd

    from kerneldyno.bench.records import Measurement

    from .shapes import Grid

Row = Mapping[str, Any]

STATES = {
    "ok": ("measured", "✓"),
    "wrong": ("wrong", "✗"),
    "failed": ("failed", "!"),
    "timeout": ("timeout", "∞"),
    "invalid": ("invalid", "?"),
    "skipped": ("skipped", "–"),
    "missing": ("missing", "…"),
}
"""Status -> the word and the sign that stand for it on the page."""
TIE, BEST, BEST_APPROXIMATE = "≈", "★", "☆"


@dataclass(frozen=True)
class Cell:
    """One cell: what is read first, what is read second, what is read on asking."""

    text: str = ""
    sign: str = ""
    below: str = ""
    title: str = ""
    state: str = "ok"
    tint: int = 0
    """-4 (much slower than the baseline) to 4 (much faster)."""
    case: str | None = None
    dtype: str = ""
    warned: bool = False


@dataclass(frozen=True)
class Marks:
    """The sign of each case that is first in its division, or tied with it."""

    signs: Mapping[str, str]

    @classmethod
    def of(cls, results: Sequence[Row], contests: pd.DataFrame) -> Marks:
        """The marks that follow from the results and `frame.winners`."""
        places = {(row["group"], row["kernel"]): row["case"] for row in results}
        signs = {}
        for contest in rows(contests):
            if (contest["group"], contest["kernel"]) not in places:
                continue  # only some of the rows are shown
            first = places[contest["group"], contest["kernel"]]
            exact = contest["division"] == "exact"
            signs[first] = BEST if exact else BEST_APPROXIMATE
            if contest["tie"] and (contest["group"], contest["runner_up"]) in places:
                for kernel in (contest["kernel"], contest["runner_up"]):
                    signs[places[contest["group"], kernel]] = TIE if exact else BEST_APPROXIMATE + TIE
        return cls(signs)


@dataclass(frozen=True)
class Table:
    """A grid with its cells made: what the template walks over."""

    grid: Grid
    exact: list[tuple[str, list[Cell]]]
    approximate: list[tuple[str, list[Cell]]]


Text = str | tuple[str, str | None]
"""What a cell of a listing shows; with a case, it leads there."""


@dataclass(frozen=True)
class Listing:
    """Rows under headings, in bodies with titles of their own."""

    name: str
    """What it holds, for a screen reader."""
    headings: list[tuple[str, str, bool]]
    """(heading, its second line, whether its cells are numbers)."""
    bodies: Sequence[tuple[str, Sequence[tuple[Row, list[Text]]]]]
    """(title, (the row that it is about, its cells)); an empty title where there is but one body."""
    of_one_kernel: bool = True
    """Whether each row is about one kernel, so that choosing another hides it."""


def fill(grid: Grid, cell: Callable[[Row], Cell]) -> Table:
    """The cells of every kernel in a grid; exact kernels and approximate ones apart, each with the fastest on top."""
    columns = [(columns.title, batch, length) for columns in grid.columns for batch, length in columns.shapes]
    dtypes = [columns.dtype for columns in grid.columns for _ in columns.shapes]
    planned = {kernel: [grid.cells.get((kernel, *column)) for column in columns] for kernel in grid.kernels}
    order = sorted(grid.kernels, key=lambda kernel: -_standing([row for row in planned[kernel] if row]))
    unplanned = Cell(text="·", title="not planned", state="unplanned")
    made = {
        kernel: [replace(cell(row) if row else unplanned, dtype=dtype) for row, dtype in zip(planned[kernel], dtypes, strict=True)]
        for kernel in order
    }
    approximate = {kernel for kernel in order if any(row["approximate"] for row in planned[kernel] if row)}
    return Table(
        grid,
        [(kernel, made[kernel]) for kernel in order if kernel not in approximate],
        [(kernel, made[kernel]) for kernel in order if kernel in approximate],
    )


def speedup_cell(row: Row, marks: Marks) -> Cell:
    """Speedup against the baseline with the latency below it, or the word for why there is none."""
    if row["status"] != "ok":
        return _without(row)
    latency = units.quantity(row["latency_s"], "s")
    low, high = row["latency_low_s"], row["latency_high_s"]
    around = f" ({units.quantity(low, 's')} – {units.quantity(high, 's')})" if low is not None and high is not None else ""
    title = f"{row['kernel']}, {row['label']}: {latency}{around}"
    sign = marks.signs.get(row["case"], "")
    common = {"sign": sign, "case": row["case"], "warned": row["warnings"] is not None}
    if row["speedup"] is None:
        return Cell(text=latency, below="no baseline", title=f"{title}; {row['speedup_reason']}", **common)
    title += f"; {units.times(row['speedup'])} the speed of {row['baseline']}"
    if row["speedup_low"] is not None and row["kernel"] != row["baseline"]:
        title += f" ({units.times(row['speedup_low'])} – {units.times(row['speedup_high'])})"
    tint = max(-4, min(4, round(2 * math.log2(row["speedup"]))))
    return Cell(text=units.times(row["speedup"]), below=latency, title=title, tint=tint, **common)


def quantity_cell(row: Row, quantity: Quantity) -> Cell:
    """The value of one column, or the word for why there is none."""
    if row["status"] != "ok":
        return _without(row)
    value, name = row[quantity.column], f"{row['kernel']}, {row['label']}"
    why = row["energy_reason"] if quantity.column in ("energy_j", "power_w") else None
    if value is None:
        return Cell(text="–", title=why or "not measured", state="unplanned", case=row["case"])
    if not believed(row, quantity.column):
        return Cell(text=units.quantity(value, quantity.unit), sign="?", title=f"{name}: {why}", case=row["case"], warned=True)
    return Cell(text=units.quantity(value, quantity.unit), title=name, case=row["case"])


def error_cell(row: Row) -> Cell:
    """Relative rms error against the exact result."""
    if row["status"] != "ok":
        return _without(row)
    error = error_of(row)
    return Cell(text="–" if error is None else f"{error:.1e}", title=f"{row['kernel']}, {row['label']}", case=row["case"])


def listing(results: Sequence[Row]) -> list[tuple[Row, list[tuple[str, Any]]]]:
    """The measured rows with the (text, sort key) of each column of LISTED; columns that nobody has are the page's business."""
    return [(row, [(show(row), key(row)) for _, _, show, key in LISTED]) for row in results if row["status"] == "ok"]


def numberless(results: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """(status, reason, rows) of every case without a number: the same reason once, what went wrong before what was skipped."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in results:
        if row["status"] != "ok":
            found.setdefault((row["status"], row["reason"] or "no reason was recorded"), []).append(row)
    order = list(STATES)
    return [(status, reason, own) for (status, reason), own in sorted(found.items(), key=lambda item: order.index(item[0][0]))]


def warned(results: Sequence[Row], measurements: Mapping[str, Measurement]) -> list[tuple[str, str, list[Row]]]:
    """(code, what it says, rows) of every kind of warning, the most frequent first; one as an example where rows differ."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for row in results:
        measurement = measurements.get(row["case"])
        for warning in {warning.code: warning for warning in measurement.warnings}.values() if measurement else ():
            found.setdefault(warning.code, []).append((warning.text, row))
    told = []
    for code, own in sorted(found.items(), key=lambda item: -len(item[1])):
        example = "for example, " if len({text for text, _ in own}) > 1 else ""
        told.append((code, example + own[0][0], [row for _, row in own]))
    return told


def _without(row: Row) -> Cell:
    word, sign = STATES[row["status"]]
    return Cell(
        text=word, sign=sign, title=f"{row['kernel']}, {row['label']}: {row['reason'] or word}", state=row["status"], case=row["case"]
    )


def _standing(own: Sequence[Row]) -> float:
    """For ordering only: the median speedup, kernels without any last."""
    speedups = sorted(row["speedup"] for row in own if row["speedup"])
    return speedups[len(speedups) // 2] if speedups else -1.0


def _joules(row: Row) -> str:
    text = units.quantity(row["energy_j"], "J")
    return text if believed(row, "energy_j") else f"{text} (not valid)"


def _half(row: Row) -> float | None:
    if row["latency_s"] is None or row["latency_low_s"] is None or row["latency_high_s"] is None:
        return None
    return float((row["latency_high_s"] - row["latency_low_s"]) / 2 / row["latency_s"])


def _half_width(row: Row) -> str:
    half = _half(row)
    return "" if half is None or not math.isfinite(half) else f"±{half:.1%}"


def _rate(row: Row) -> float | None:
    return None if row["tflops"] is None else float(row["tflops"] * 1e12)


def _ratio(row: Row) -> float | None:
    """Error over the naive formula's; an approximate kernel's would be of its claim, and look like a wonder of precision."""
    return None if row["approximate"] else row["error_max_ratio"]


def _throughput(row: Row) -> float | None:
    return row["tokens"] / row["latency_s"] if row["latency_s"] else None


def _scientific(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _digits(value: float | None) -> str:
    return "" if value is None else units.digits(value, 2)


LISTED: list[tuple[str, str, Callable[[Row], str], Callable[[Row], Any]]] = [
    ("kernel", "operator/name", lambda row: row["kernel"], lambda row: row["kernel"]),
    ("shape", "", lambda row: row["label"], lambda row: (row["batch"] or 0) * (row["seq_len"] or 0)),
    ("latency", "median per call", lambda row: units.quantity(row["latency_s"], "s"), lambda row: row["latency_s"]),
    ("interval", "95 %, ±", _half_width, _half),
    ("speedup", "× baseline", lambda row: units.times(row["speedup"]), lambda row: row["speedup"]),
    ("of limit", "%", lambda row: units.quantity(row["share_of_limit"], "share", 2), lambda row: row["share_of_limit"]),
    ("rate", "FLOP/s, exact problem", lambda row: units.quantity(_rate(row), "FLOP/s"), _rate),
    ("throughput", "query tokens", lambda row: units.quantity(_throughput(row), "tok/s"), _throughput),
    ("peak memory", "per call", lambda row: units.quantity(row["peak_bytes"], "B"), lambda row: row["peak_bytes"]),
    ("weights", "", lambda row: units.quantity(row["weight_bytes"], "B"), lambda row: row["weight_bytes"]),
    ("energy", "per call, gross", _joules, lambda row: row["energy_j"]),
    ("power", "mean", lambda row: units.quantity(row["power_w"], "W"), lambda row: row["power_w"]),
    ("error", "relative rms", lambda row: _scientific(error_of(row)), error_of),
    ("error ratio", "max, × naive", lambda row: _digits(_ratio(row)), _ratio),
    ("probes", "passed", lambda row: str(row["probes"] or ""), lambda row: row["probes"]),
    ("ran as", "", lambda row: row["identity"] or "", lambda row: row["identity"] or ""),
    ("build", "", lambda row: units.quantity(row["build_s"], "s"), lambda row: row["build_s"]),
    ("samples", "", lambda row: str(row["samples"] or ""), lambda row: row["samples"]),
]
"""The list of all measured cases: heading, its second line, what is shown, what is sorted by."""
