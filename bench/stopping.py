"""The rules when to stop warming up and when to stop sampling, fed with what was measured so far."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from .stats import interval_of_sorted

if TYPE_CHECKING:
    from .manifest import Protocol

WARMUP_WINDOWS = 3
"""So many warm-up windows in a row must agree."""


class StoppingRule:
    """Says when one kernel has been sampled enough, by a protocol; fed with every sample as it is taken."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.busy_s = 0.0
        """Time spent in samples so far."""
        self._ordered: list[float] = []

    def add(self, seconds_per_call: float, busy_s: float) -> None:
        """Take note of a sample, and of the time that it took in all."""
        insort(self._ordered, seconds_per_call)
        self.busy_s += busy_s

    def forget(self, seconds_per_call: float) -> None:
        """Take a sample back that does not count after all. The time that it took was spent: it still counts to the cap.

        Raises ValueError when there is no such sample.
        """
        place = bisect_left(self._ordered, seconds_per_call)
        if self._ordered[place : place + 1] != [seconds_per_call]:
            raise ValueError(f"{seconds_per_call} is none of the {len(self._ordered)} samples: only what was added can be forgotten")
        del self._ordered[place]

    @property
    def reached(self) -> float:
        """Half-width of the median's interval so far, as a fraction; infinite before the second sample."""
        return interval_of_sorted(self._ordered).half_width if self._ordered else math.inf

    @property
    def reason(self) -> str | None:
        """Why sampling may stop: "target reached" or "cap"; None while it should go on."""
        protocol = self.protocol
        enough = len(self._ordered) >= protocol.min_samples and self.busy_s >= protocol.min_total_s
        if enough and self.reached <= protocol.target:
            return "target reached"
        return "cap" if self.busy_s and self.busy_s >= protocol.cap_s else None

    @property
    def is_finished(self) -> bool:
        return self.reason is not None


class WarmUp:
    """Says when one kernel is warm, by a protocol; fed with windows of calls that are timed but not kept."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.busy_s = 0.0
        """Time spent in windows so far."""
        self._windows: list[float] = []

    def add(self, window_seconds_per_call: float, busy_s: float) -> None:
        """Take note of a window, and of the time that it took in all."""
        self._windows = [*self._windows, window_seconds_per_call][-WARMUP_WINDOWS:]
        self.busy_s += busy_s

    @property
    def stable(self) -> bool:
        """Whether the last windows agree: the slowest is slower than the fastest by no more than the protocol allows."""
        if len(self._windows) < WARMUP_WINDOWS:
            return False
        slowest, fastest = max(self._windows), min(self._windows)
        return slowest <= fastest * (1 + self.protocol.warmup_agreement)

    @property
    def is_finished(self) -> bool:
        """Warm, or out of patience; `stable` tells which."""
        protocol = self.protocol
        return (self.stable and self.busy_s >= protocol.warmup_s) or self.busy_s >= protocol.warmup_cap_s
