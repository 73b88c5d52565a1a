"""A run as tidy tables: one row per case, one row per sample, one row per contest. All of it derived from the journal.

Scaling to milliseconds or MiB happens where numbers are shown, not here.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from kerneldyno.bench import journal

from .case_columns import case_columns
from .columns import COLUMNS
from .timings import timings
from .winners import winners

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kerneldyno.bench.journal import Run

    from .timings import Timing

__all__ = ["COLUMNS", "Frames", "load", "results", "rows", "samples", "winners", "write_tables"]

NAN = float("nan")
PLAIN = {float, int, bool, str, type(None)}
SAMPLE_COLUMNS = [
    "case", "kernel", "operator", "label", "device", "process", "round", "position", "latency_s", "host_s", "warm_s", "cold_s",
]  # fmt: skip


@dataclass(frozen=True)
class Frames:
    """A run and the tables derived from it, each made when first asked for."""

    run: Run

    @cached_property
    def timings(self) -> dict[str, Timing]:
        return timings(self.run)

    @cached_property
    def results(self) -> pd.DataFrame:
        return results(self.run, self.timings)

    @cached_property
    def samples(self) -> pd.DataFrame:
        return samples(self.run)

    @cached_property
    def winners(self) -> pd.DataFrame:
        return winners(self.run, self.timings)


def load(folder: Path | str) -> Frames:
    """The tables of a run folder. Raises what `journal.read` raises when the folder holds no readable run."""
    return Frames(journal.read(Path(folder)))


@journal.no_cycles()
def results(run: Run, timed: Mapping[str, Timing] | None = None) -> pd.DataFrame:
    """One row per case of the plan, measured or not; columns as in COLUMNS, then the fields of the problems.

    Only rows whose status is "ok" have numbers in the latency columns and in what follows from them. `timed` is what
    `timings` made of the run, for those who have it.
    """
    found = case_columns(run, timings(run) if timed is None else timed)
    nothing = [None] * len(run.cases)
    return _tidy({name: found.get(name, nothing) for name in dict.fromkeys((*COLUMNS, *found))})


@journal.no_cycles()
def samples(run: Run) -> pd.DataFrame:
    """One row per latency sample, in the order in which they were taken (`position`), seconds per call.

    Samples in the other state of the cache have an order of their own: `cold_s` is not of the round that it stands beside.
    """
    taken = [
        (case, number, process)
        for case in run.cases
        if (measurement := run.measurements.get(case.id)) is not None
        for number, process in enumerate(measurement.processes)
        if process.samples_s
    ]
    if not taken:
        return pd.DataFrame(columns=SAMPLE_COLUMNS)
    counts = np.array([len(process.samples_s) for _, _, process in taken])
    starts = np.cumsum(counts) - counts
    processes = [process for _, _, process in taken]
    labels = {
        name: pd.Series([getattr(case, attribute) for case, _, _ in taken]).repeat(counts.tolist()).reset_index(drop=True)
        for name, attribute in {"case": "id", "kernel": "kernel", "operator": "operator", "label": "label", "device": "device"}.items()
    }
    return pd.DataFrame(
        labels
        | {
            "process": np.repeat([number for _, number, _ in taken], counts),
            "round": np.fromiter(chain.from_iterable(process.rounds for process in processes), np.int64, counts.sum()),
            "position": np.arange(counts.sum()) - np.repeat(starts, counts),
            "latency_s": np.fromiter(chain.from_iterable(process.samples_s for process in processes), np.float64, counts.sum()),
            "host_s": _beside([process.host_samples_s for process in processes], counts),
            "warm_s": _beside([process.warm_samples_s for process in processes], counts),
            "cold_s": _beside([process.cold_samples_s for process in processes], counts),
        },
        copy=False,
    )


@journal.no_cycles()
def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain dicts, with None for what is not there."""
    columns = [_plain(frame[name]) for name in frame]
    names = list(frame.columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def write_tables(folder: Path | str) -> list[Path]:
    """Write results.csv, results.parquet and samples.parquet beside the journal, replacing what is there; their paths."""
    folder = Path(folder)
    frames = load(folder)
    writers: dict[str, Callable[[Path], None]] = {
        "results.csv": lambda path: frames.results.to_csv(path, index=False),
        "results.parquet": lambda path: frames.results.to_parquet(path, index=False),
        "samples.parquet": lambda path: frames.samples.to_parquet(path, index=False),
    }
    return [replacing(folder / name, write) for name, write in writers.items()]


def replacing(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a file beside `path`, then move it there: a reader sees the old file or the new one, never half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _beside(lists: Sequence[list[float] | None], counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A column of the samples that were taken beside: as many as there are rows for each list, NaN where it has fewer."""
    column = np.full(counts.sum(), NAN)
    start = 0
    for values, count in zip(lists, counts.tolist(), strict=True):
        if values:
            column[start : start + min(count, len(values))] = values[:count]
        start += count
    return column


def _plain(column: pd.Series[Any]) -> list[Any]:
    """The values of a column as Python's own, with None for what is not there."""
    gone = column.isna().to_numpy()
    if not gone.any():
        return column.tolist()
    if gone.all():
        return [None] * len(column)
    return [None if absent else value for value, absent in zip(column.tolist(), gone.tolist(), strict=True)]


def _tidy(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Each column in one type that CSV, Parquet and pandas agree on; missing stays missing, and a count is no float for it."""
    return pd.DataFrame({name: _typed(values) for name, values in columns.items()}, copy=False)


def _typed(values: Sequence[Any]) -> pd.Series[Any]:
    kinds = set(map(type, values))
    if not kinds <= PLAIN or (float in kinds and len(kinds - {float, type(None)})):  # NaN is no value of another kind
        values = [_value(value) for value in values]
        kinds = set(map(type, values))
    present = kinds - {type(None)}
    if not present:
        return pd.Series(np.full(len(values), NAN))
    if present <= {float, int} and present != {int}:
        return pd.Series(np.array(values, dtype=np.float64))
    if len(present) == 1 and present < {int, bool}:
        return _nullable(values, *present) if present < kinds else pd.Series(values)
    return _nullable(values if present == {str} else [None if value is None else str(value) for value in values], str)


def _nullable(values: Sequence[Any], kind: type) -> pd.Series[Any]:
    """A column of one kind in which some may be missing; through Arrow, which takes a quarter of pandas' own time."""
    kinds: dict[type, tuple[Any, pa.DataType]] = {
        int: (pd.Int64Dtype(), pa.int64()),
        bool: (pd.BooleanDtype(), pa.bool_()),
        str: (pd.StringDtype(), pa.large_string()),
    }
    dtype, arrow = kinds[kind]
    return pd.Series(dtype.__from_arrow__(pa.array(values, arrow)))


def _value(value: Any) -> Any:
    """One of Python's own values; None for the ways to say that there is none."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value
