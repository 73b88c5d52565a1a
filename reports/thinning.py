"""How many samples of a case are drawn, and which: a page is for looking, and every sample stays in samples.parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kerneldyno.bench.records import Measurement

MANY_CASES = 1000
"""Of more cases than this, each is drawn with LEAST points at most."""
LEAST = 64
ALL_POINTS = 300_000
"""Up to MANY_CASES, all cases together have so many points at most …"""
MOST = 5000
"""… and one alone so many: a browser draws each as an element."""


def points_per_case(measurements: Sequence[Measurement | None]) -> int:
    """The most points that a case is drawn with; as many as any has samples where nothing need be left out."""
    counts = sorted(min(MOST, sum(len(process.samples_s) for process in one.processes)) for one in measurements if one is not None)
    if len(measurements) > MANY_CASES:
        return LEAST
    left, points = len(counts), ALL_POINTS
    for count in counts:  # short cases leave their share to the long ones
        if count * left > points:
            return max(LEAST, points // left)
        points -= count
        left -= 1
    return max(counts, default=0)


def thinned(samples: Sequence[float], most: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Places of at most `most` samples, ascending: the first, the last, the fastest, the slowest, and others evenly between.

    Evenly spaced ones keep drift and spread as they are; the two extremes would seldom be among them. `most` is 4 or more.
    """
    if len(samples) <= most:
        return np.arange(len(samples))
    even = np.linspace(0, len(samples) - 1, most - 2).round().astype(int)
    extremes = [int(np.argmin(samples)), int(np.argmax(samples))]
    return np.unique(np.concatenate([even, extremes]))
