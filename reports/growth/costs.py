"""What the reports of a run of one size cost, the limits that they must keep, and how fast costs grow with the size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

MB, GIB = 1e6, 2.0**30


class Costs(msgspec.Struct, kw_only=True):
    """Of one size of run. None: not measured, `notes` says why."""

    cases: int
    journal_bytes: int
    read_s: float
    """`journal.read`."""
    results_s: float
    """The table of results, with latencies and speedups of all cases."""
    frame_processor_s: float
    """Processor time of both: less than they took where the machine did something else meanwhile."""
    frame_peak_bytes: int
    """Peak resident memory of the process until then, Python and pandas included."""
    winners_s: float
    samples_s: float
    tables_peak_bytes: int
    """The same until all tables were made."""
    page_s: float | None = None
    """Reading the run and writing its page, in another fresh process; importing is not counted."""
    page_processor_s: float | None = None
    page_bytes: int | None = None
    page_peak_bytes: int | None = None
    loaded_s: float | None = None
    """In Chromium, from navigating to the page until DOMContentLoaded is over."""
    interactive_s: float | None = None
    """From navigating to the page until the first filter was operated and its effect was drawn."""
    console_errors: int | None = None
    notes: list[str] = []

    @property
    def frame_s(self) -> float:
        """Seconds to load the run into a frame."""
        return self.read_s + self.results_s


class Limit(msgspec.Struct, frozen=True):
    """The most that something may cost for a run of at most so many cases."""

    cases: int
    cost: str
    """A field or property of Costs."""
    most: float


LIMITS = (
    Limit(100, "page_bytes", 3 * MB),
    Limit(100, "interactive_s", 1.0),
    Limit(10_000, "page_bytes", 10 * MB),
    Limit(10_000, "page_s", 10.0),
    Limit(10_000, "interactive_s", 10.0),
    Limit(10_000, "console_errors", 0),
    Limit(100_000, "frame_s", 10.0),
    Limit(100_000, "frame_peak_bytes", 2 * GIB),
)
SHOWN = {
    "journal_bytes": "size of the journal",
    "read_s": "read the journal",
    "results_s": "table of results",
    "frame_s": "both: the run in a frame",
    "frame_processor_s": "… of which processor time",
    "frame_peak_bytes": "peak memory until then",
    "winners_s": "table of winners",
    "samples_s": "table of samples",
    "tables_peak_bytes": "peak memory with all tables",
    "page_s": "write the page, reading included",
    "page_processor_s": "… of which processor time",
    "page_bytes": "size of the page",
    "page_peak_bytes": "peak memory of writing the page",
    "loaded_s": "page loaded in Chromium",
    "interactive_s": "first filter operated in Chromium",
    "console_errors": "errors in its console",
}
"""What is told of each size, in words."""


def missed(measured: Sequence[Costs]) -> list[tuple[Costs, Limit]]:
    """Limits that were not kept, and by what; what was not measured misses none."""
    return [
        (costs, limit)
        for costs in measured
        for limit in LIMITS
        if costs.cases <= limit.cases and (cost := getattr(costs, limit.cost)) is not None and cost > limit.most
    ]


def exponent(small: Costs, large: Costs, cost: str) -> float | None:
    """The power of the number of cases with which a cost grows: 1 is in proportion, 0 not at all; None where it is not known."""
    before, after = getattr(small, cost), getattr(large, cost)
    if not before or not after or small.cases == large.cases:
        return None
    return math.log(after / before) / math.log(large.cases / small.cases)
