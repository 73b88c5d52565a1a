"""Joules from a counter that moves in steps: stretches of time that begin and end on one of its edges, busy ones and idle ones.

Between two edges the counter is exact, and calls are counted between the same two. What stays open is when, before it was
seen to, the counter moved: at most the time since the look before, and at most one of its updates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .counter import Counter, CounterError, Edge
from .watch import Reading, slowdowns

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backtoback import BackToBack
    from .clock import Clock
    from .energy import PowerMeter
    from .watch import Watch

FEWEST_UPDATES = 50
"""A window goes on until the counter has moved so often …"""
MOST_WINDOWS_S = 3.0
"""… or for so many times the length that it should have."""
EDGE_PATIENCE_S = 5.0
"""A counter that does not move for so long does not count."""
BESIDE_S = 0.05
"""Power, temperature and throttling are read at most so often during a window."""
PORTION_S = 0.01
"""A portion of calls takes about so long: the distance between two looks."""
MOST_PORTION_S = 0.05
READING_SHARE = 0.02
"""Looking at the counter may take so much of a portion."""
RAMP_S = 0.2
"""Readings of the first moments still show the idle board."""
NAP_S = 0.1
WITHIN_C = 2.0
"""Windows start within so many °C of the group's first."""
FEWEST_READINGS = 20


class Stopped(Exception):
    """Somebody asked to stop."""


@dataclass(frozen=True)
class Window:
    """One kernel back to back from edge to edge."""

    joules: float
    seconds: float
    calls: int
    updates: int
    edge_error: float
    """Largest share of the joules per call that the ends leave open: edges seen late, calls done in part."""
    temperature_c: float | None = None
    """At its start."""
    throttled_s: float = 0.0
    readings_j: float | None = None
    """Joules by the integral of power readings; None without enough of them."""
    stray_s: float = 0.0
    """For how long the device worked on after all counted calls were done."""


@dataclass(frozen=True)
class Idle:
    """The resting device from edge to edge."""

    watts: float
    period_s: float
    """Between two updates of the counter, as seen."""


@dataclass
class _Beside:
    """What else is read during a window: power, for its integral, and whether the device holds back."""

    meter: PowerMeter
    watch: Watch
    readings: list[tuple[float, float]] = field(default_factory=list)
    throttled_s: float = 0.0
    _last: tuple[float, Reading] | None = None

    def begin(self, now: float) -> Reading:
        """The state of the device at the start of the window."""
        self._last = now, self.watch.read()
        return self._last[1]

    def read(self, now: float) -> None:
        if self._last is None or now - self._last[0] < BESIDE_S:
            return
        watts, state = self.meter.power_w(), self.watch.read()
        if watts is not None:
            self.readings.append((now, watts))
        if slowdowns(self._last[1], state):
            self.throttled_s += now - self._last[0]
        self._last = now, state

    def joules(self, seconds: float) -> float | None:
        """Mean power between the first and the last reading, by trapezoids, over the whole window."""
        if len(self.readings) < FEWEST_READINGS:
            return None
        pairs = zip(self.readings, self.readings[1:], strict=False)
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)
        return area / (self.readings[-1][0] - self.readings[0][0]) * seconds


@dataclass(frozen=True)
class Stand:
    """One device with what reads it, and how time passes there; tests let it pass on a fake clock."""

    clock: Clock
    meter: PowerMeter
    watch: Watch
    sleep: Callable[[float], None]
    tick: Callable[[], None] = lambda: None
    """Called between portions and between naps: says that work goes on, and raises Stopped when it must not."""

    def portion_s(self) -> float:
        """How long a portion should take, so that reading the counter is a small part of it."""
        started = self.clock.now()
        for _ in range(5):
            self.meter.energy_j()
        read_s = (self.clock.now() - started) / 5
        return min(max(PORTION_S, read_s / READING_SHARE), MOST_PORTION_S)

    def run(self, work: BackToBack, seconds: float) -> None:
        """Keep it running for so long."""
        started = self.clock.now()
        while self.clock.now() - started < seconds:
            self._step(work)

    def rest(self, seconds: float) -> None:
        """Let the device be for so long."""
        until = self.clock.now() + seconds
        while (left := until - self.clock.now()) > 0:
            self.tick()
            self.sleep(min(left, NAP_S))

    def idle(self) -> Idle:
        """Power of the resting device and the period of its counter. Raises CounterError."""
        self.clock.synchronize()
        self.rest(self.meter.pace.settle_s)
        counter = Counter(self.meter, self.clock)
        first = last = self._edge(counter, self._nap)
        before = counter.updates
        while last.seen_s - first.seen_s < self.meter.pace.idle_s:
            last = self._edge(counter, self._nap)
        seconds = last.seen_s - first.seen_s
        return Idle((last.joules - first.joules) / seconds, seconds / (counter.updates - before))

    def window(self, work: BackToBack, period_s: float) -> Window:
        """One window of a kernel that is running already. Raises CounterError; what the kernel raises goes through."""
        pace, counter, beside = self.meter.pace, Counter(self.meter, self.clock, period_s), _Beside(self.meter, self.watch)
        done = 0

        def step() -> None:
            nonlocal done
            done = self._step(work)
            beside.read(self.clock.now())

        first = self._edge(counter, step)
        calls_before, unsure_before, updates_before, start = done, work.unsure, counter.updates, beside.begin(first.seen_s)
        while True:
            last = self._edge(counter, step)
            seconds, updates = last.seen_s - first.seen_s, counter.updates - updates_before
            if seconds >= pace.window_s * MOST_WINDOWS_S or (seconds >= pace.window_s and updates >= FEWEST_UPDATES):
                break
        calls = done - calls_before
        return Window(
            joules=last.joules - first.joules,
            seconds=seconds,
            calls=calls,
            updates=updates,
            edge_error=max(first.late_s, last.late_s) / seconds + max(unsure_before, work.unsure) / max(calls, 1),
            temperature_c=start.temperature_c,
            throttled_s=beside.throttled_s,
            readings_j=beside.joules(seconds),
            stray_s=work.drain(),
        )

    def power(self, work: BackToBack) -> tuple[float, str]:
        """(mean watts while it runs back to back, source): an indication, from power readings or else a short stretch of the counter.

        Raises CounterError when there is neither.
        """
        self.run(work, RAMP_S)
        started, readings = self.clock.now(), []
        while self.clock.now() - started < self.meter.pace.power_s:
            self._step(work)
            if (watts := self.meter.power_w()) is not None:
                readings.append(watts)
        if readings and (mean := math.fsum(readings) / len(readings)) > 0:
            work.drain()
            return mean, f"{self.meter.power_source} (indicative)"
        counter = Counter(self.meter, self.clock)
        first = last = self._edge(counter, lambda: self._step(work))
        while last.seen_s - first.seen_s < self.meter.pace.power_s:
            last = self._edge(counter, lambda: self._step(work))
        work.drain()
        return (last.joules - first.joules) / (last.seen_s - first.seen_s), f"{self.meter.energy_source} (indicative)"

    def acclimatise(self, work: BackToBack, wanted_c: float | None, patience_s: float) -> None:
        """Bring the kernel to speed and the device near a temperature: hotter by running, cooler by resting, for so long at most."""
        until_s = self.clock.now() + patience_s
        before_c, now_c = self._lead(work)
        while wanted_c is not None and now_c is not None and abs(now_c - wanted_c) > WITHIN_C and self.clock.now() < until_s:
            if now_c > wanted_c:
                work.drain()
                heated = max(now_c - before_c, 0.0) if before_c is not None else 0.0
                while (self.watch.read().temperature_c or 0.0) > wanted_c - heated and self.clock.now() < until_s:
                    self.rest(NAP_S)
            before_c, now_c = self._lead(work)

    def _lead(self, work: BackToBack) -> tuple[float | None, float | None]:
        """Temperatures before and after the kernel was brought to speed."""
        before_c = self.watch.read().temperature_c
        self.run(work, self.meter.pace.lead_s)
        return before_c, self.watch.read().temperature_c

    def _step(self, work: BackToBack) -> int:
        self.tick()
        return work.step()

    def _nap(self) -> None:
        self.tick()
        self.sleep(self.meter.pace.poll_s)

    def _edge(self, counter: Counter, between: Callable[[], object]) -> Edge:
        """Go on with `between` until the counter moves. Raises CounterError when it stands still."""
        started, looks = self.clock.now(), 0
        while True:
            between()
            if edge := counter.look():
                return edge
            looks += 1
            waited = self.clock.now() - started
            if waited > EDGE_PATIENCE_S and looks > 2:
                raise CounterError(f"not measured: the energy counter ({self.meter.energy_source}) did not move in {waited:.1f} s")
