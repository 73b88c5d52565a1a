"""From the measurements of two cases to log ratios, process by process. No torch, no kernels."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from .. import stats
from ..verdict import Ratio
from .decide import Evidence, Reading, reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..comparison import Cell
    from ..records import Measurement


def differences(base: Measurement, other: Measurement, *, adjacent: bool) -> list[float]:
    """ln(other / base) of each fresh process that measured both, or of each pair of adjacent processes."""
    if adjacent:
        return [b - a for a, b in zip(medians(base), medians(other), strict=False)]
    return stats.paired_medians(base.processes, other.processes)


def evidence(cell: Cell, measurements: Mapping[str, Measurement]) -> Evidence:
    """What was measured of a cell; empty where a side has no times."""
    base, candidate, copy = (_timed(measurements.get(case or "")) for case in (cell.base, cell.candidate, cell.copy))
    pairs = differences(base, candidate, adjacent=bool(cell.adjacent)) if base and candidate else []
    copies = differences(base, copy, adjacent=False) if base and copy else []
    return Evidence(tuple(pairs), tuple(copies))


def ratio(found: Sequence[float], base: Measurement, other: Measurement, taken: Reading | None = None, *, margin: float) -> Ratio | None:
    """The differences as a record; None for fewer than two. `taken` is the reading that decided, if it is another."""
    if len(found) < 2:
        return None
    one = taken or reading(found, margin)
    times = (math.exp(statistics.fmean(medians(side))) for side in (base, other))
    return recorded(one, *times, differences=list(found[: one.processes]))


def recorded(one: Reading, base_s: float, other_s: float, *, differences: Sequence[float] = ()) -> Ratio:
    """A reading of logarithms as the ratio that is written down."""
    return Ratio(
        ratio=math.exp(one.mean),
        low=math.exp(one.low),
        high=math.exp(one.high),
        spread=one.spread,
        processes=one.processes,
        margin=one.margin,
        p_slower=one.p_slower,
        p_faster=one.p_faster,
        base_s=base_s,
        other_s=other_s,
        differences=list(differences),
    )


def _timed(measurement: Measurement | None) -> Measurement | None:
    """The measurement, if it may be compared: what failed in one of its processes may not."""
    return measurement if measurement is not None and measurement.status == "ok" and measurement.processes else None


def medians(measurement: Measurement | None) -> list[float]:
    """ln seconds per call of each process; empty where there is no measurement that may be compared."""
    timed = _timed(measurement)
    return [math.log(statistics.median(process.samples_s)) for process in timed.processes if process.samples_s] if timed else []
