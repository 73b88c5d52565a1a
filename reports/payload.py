"""What a run's page carries for its script: the results column by column, their tables, and every case in detail.

Numbers travel as float32 and names once each, so that ten thousand cases fit; what is exact to the last digit is
results.parquet in the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import reproduce, tables, units
from .shell import typed
from .thinning import points_per_case, thinned

if TYPE_CHECKING:
    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.records import Measurement

    from .shapes import Grid
    from .tables import Cell, Listing, Table, Text

Row = Mapping[str, Any]

EXACT = 2**24
"""Whole numbers below are exact as float32."""
STEPS = 65535
"""Samples are drawn to this fraction of the range between the fastest and the slowest of their case."""


def results(frame: pd.DataFrame) -> dict[str, Any]:
    """Every column of the results: an array of numbers, or the distinct values and for each row which one it is."""
    return {str(name): _column(frame[name]) for name in frame}


def listing(rows: Sequence[Row]) -> dict[str, Any]:
    """The table of all measured cases: headings, which rows, their texts column by column, and numbers to sort by.

    A column that no case has a value for is left out.
    """
    listed = tables.listing(rows)
    place = {row["case"]: number for number, row in enumerate(rows)}
    kept = [index for index in range(len(tables.LISTED)) if any(cells[index][0] for _, cells in listed)]
    return {
        "headings": [tables.LISTED[index][:2] for index in kept],
        "rows": typed(np.array([place[row["case"]] for row, _ in listed], dtype="i4")),
        "texts": [_encoded([cells[index][0] for _, cells in listed]) for index in kept],
        "keys": [_keys([cells[index][1] for _, cells in listed]) for index in kept],
    }


def grid(table: Table, places: Mapping[str, int]) -> dict[str, Any]:
    """The frame of a table kernel × shape, whose cells are places in the results: -1 where a kernel was not planned."""
    return {
        "operator": table.grid.operator,
        "common": table.grid.common,
        "columns": [[columns.title, columns.dtype, columns.shapes] for columns in table.grid.columns],
        "divisions": [[kernel for kernel, _ in members] for members in (table.exact, table.approximate)],
        "cells": [typed(np.array(_planned(table.grid, kernel, places), dtype="i4")) for kernel, _ in (*table.exact, *table.approximate)],
    }


def texts(rows: Sequence[Row], cell: Any) -> dict[str, Any]:
    """What each row shows of one quantity: text, and the sign before it where there is one."""
    made: list[Cell] = [cell(row) for row in rows]
    return _encoded([f"{one.sign} {one.text}".strip() for one in made])


def table(listing: Listing, places: Mapping[str, int]) -> dict[str, Any]:
    """Another table: headings, and bodies of rows, each with the place in the results that it is about."""

    def shown(text: Text) -> Any:
        return text if isinstance(text, str) else [text[0], -1 if text[1] is None else places[text[1]]]

    return {
        "name": listing.name,
        "headings": listing.headings,
        "bodies": [
            [title, [[places[row["case"]], [shown(text) for text in cells]] for row, cells in own]] for title, own in listing.bodies
        ],
    }


def details(run: Run, rows: Sequence[Row]) -> dict[str, Any]:
    """What is known of each case beside its row: samples in the order of measuring, probes, clocks, windows, the command."""
    cases = {case.id: case for case in run.cases}
    measurements = [run.measurements.get(row["case"]) for row in rows]
    most = points_per_case(measurements)
    return {
        "commands": [reproduce.command(run, cases[row["case"]]) for row in rows],
        "told": [_told(measurement) for measurement in measurements],
        "samples": [_samples(measurement, most) for measurement in measurements],
    }


def left_out(run: Run) -> str:
    """What the page does not draw of the samples, in a sentence; empty where it draws all."""
    measurements = [run.measurements.get(case.id) for case in run.cases]
    most = points_per_case(measurements)
    longer = sum(one is not None and len(one.samples_s) > most for one in measurements)
    if not longer:
        return ""
    cases = units.count(longer, "case")
    return f"Of {cases} with more than {most} samples {most} each are drawn, in their order; samples.parquet holds every one."


def _told(measurement: Measurement | None) -> dict[str, Any]:
    """Facts of one case that are no column of the results; nothing where there is nothing."""
    if measurement is None:
        return {}
    energy, clocks = measurement.energy, measurement.clocks
    told = {
        "probes": {name: float(f"{ratio:.2g}") for name, ratio in measurement.probes.items()},
        "left_out": measurement.left_out,
        "phases": {name: float(f"{seconds:.3g}") for name, seconds in measurement.phases_s.items()},
        "warnings": [(warning.code, warning.text) for warning in measurement.warnings],
        "windows": [float(f"{joules:.4g}") for joules in energy.windows_j] if energy else [],
        "temperatures": [energy.temperature_low_c, energy.temperature_high_c] if energy and energy.temperature_low_c is not None else [],
        "throttled": list(clocks.throttle_reasons) if clocks else [],
        "stderr": measurement.stderr_tail,
    }
    return {name: value for name, value in told.items() if value}


def _samples(measurement: Measurement | None, most: int) -> dict[str, Any] | None:
    """The samples of a case in the order in which they were taken: whole steps between the least and the most of them."""
    if measurement is None or not (taken := measurement.samples_s):
        return None
    kept = thinned(taken, most)
    values = np.asarray(taken)[kept]
    low, high = float(values.min()), float(values.max())
    steps = np.rint((values - low) / ((high - low) or 1.0) * STEPS)
    ends = np.cumsum([len(process.samples_s) for process in measurement.processes if process.samples_s])
    return {
        "low": low,
        "high": high,
        "values": typed(steps.astype("u2")),
        "of": len(taken),
        "at": None if len(kept) == len(taken) else typed(kept.astype("i4")),
        "ends": ends.tolist() if len(ends) > 1 else [],
    }


def _planned(own: Grid, kernel: str, places: Mapping[str, int]) -> list[int]:
    found = [own.cells.get((kernel, columns.title, batch, length)) for columns in own.columns for batch, length in columns.shapes]
    return [-1 if row is None else places[row["case"]] for row in found]


def _column(series: pd.Series[Any]) -> dict[str, Any] | None:
    if series.isna().all():
        return None
    if pd.api.types.is_bool_dtype(series) or not pd.api.types.is_numeric_dtype(series):
        return _encoded([None if value is pd.NA else value for value in series.tolist()])
    values = series.to_numpy(dtype="f8", na_value=np.nan)
    whole = not pd.api.types.is_float_dtype(series)
    return {"numbers": typed(values.astype("f8" if whole and np.nanmax(np.abs(values)) > EXACT else "f4"))}


def _encoded(values: Sequence[Any]) -> dict[str, Any]:
    """Distinct values, and for each row its place among them."""
    places: dict[Any, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return {"values": list(places), "codes": typed(np.array(codes, dtype="u2" if len(places) <= STEPS else "i4"))}


def _keys(keys: Sequence[Any]) -> dict[str, Any] | None:
    """Numbers to sort by; nothing where the texts themselves are sorted."""
    if any(isinstance(key, str) for key in keys):
        return None
    return typed(np.array([np.nan if key is None else key for key in keys], dtype="f4"))
