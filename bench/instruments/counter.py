"""A cumulative energy counter that moves in steps, read against a clock: when it moved, how often, and that it never falls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import Clock
    from .energy import PowerMeter


class CounterError(Exception):
    """The counter gave nothing that could be used; the message says why."""


@dataclass(frozen=True)
class Edge:
    """The counter has moved."""

    joules: float
    seen_s: float
    late_s: float
    """It moved at most so long before it was seen to."""


class Counter:
    """Looks at a cumulative counter and says when it has moved. Raises CounterError when it cannot be read, or falls."""

    def __init__(self, meter: PowerMeter, clock: Clock, period_s: float = math.inf) -> None:
        """`period_s`: seconds between two updates as they were seen before; infinite when nobody knows."""
        self._meter, self._clock, self._period_s = meter, clock, period_s
        self.updates = 0
        """Updates since the beginning. Where looks are rarer than updates, several may lie between two looks."""
        self._joules = self._read()
        self._looked_s = clock.now()

    def look(self) -> Edge | None:
        """The edge that came since the last look; None when there was none."""
        joules, now = self._read(), self._clock.now()
        since, self._looked_s = now - self._looked_s, now
        before, self._joules = self._joules, joules
        if joules == before:
            return None
        if joules < before:
            was = f"from {before:.3f} to {joules:.3f} J"
            raise CounterError(f"not measured: the energy counter ({self._meter.energy_source}) went backwards, {was}: it was reset")
        self.updates += max(1, int(since / self._period_s))
        return Edge(joules, now, min(since, self._period_s))

    def _read(self) -> float:
        joules = self._meter.energy_j()
        if joules is None or not math.isfinite(joules):
            raise CounterError(f"not measured: the energy counter ({self._meter.energy_source}) could not be read")
        return joules
