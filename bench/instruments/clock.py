"""Clocks that time a run of calls: what every clock does, the wall clock for the CPU, and a virtual one for tests."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

from .cache import CpuCache

SAMPLE_S = 1e-3
"""A sample on the CPU lasts at least this long …"""
RESOLUTIONS = 1000
"""… and at least this many times the clock's resolution."""

Callee = Callable[[Any], Any]
CacheState = Literal["warm", "cold"]


@dataclass(frozen=True)
class Timing:
    """What one sample came to."""

    seconds: float
    """Per call: device time on CUDA, wall-clock time on the CPU."""
    host_seconds: float | None
    """Per call, from the launch of the first to the end of the last as the host sees it; cold CUDA samples only."""
    output: object
    """What the last call returned, kept so that it can be checked again."""
    held: bool = True
    """False where the stream could not be held back while calls were queued (a call that waits for the device): gaps
    between launches are then part of `seconds`."""


class Clock(Protocol):
    """Times calls on one device."""

    resolution_s: float
    """The smallest difference that it can tell."""
    cache: CacheState
    """What the samples find in the cache that stand for the latency; the other state is sampled besides."""

    def now(self) -> float:
        """Monotonic seconds since some moment: for budgets and warm-up, not for samples."""

    def synchronize(self) -> None:
        """Wait until the device has nothing left to do."""

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = False) -> Timing:
        """Call `run(x)` for each x of `inputs` between two readings, the whole device idle at both ends.

        `cold` empties the caches first: on CUDA once, and the rotation of many inputs keeps them empty of what later calls
        need; on the CPU before every call, each of which is then timed by itself.
        """

    def calls_for(self, call_s: float) -> int:
        """How many calls of about `call_s` seconds a sample needs."""


class CpuClock:
    """The wall clock, around as many calls as it takes to read it well."""

    cache: CacheState = "warm"

    def __init__(self, caches: CpuCache | None = None) -> None:
        self.resolution_s = _smallest_step()
        self._caches = caches or CpuCache()

    def now(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        """Nothing to wait for: calls on the CPU are done when they return."""

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = False) -> Timing:
        taken, output = 0, None
        with no_garbage_collection():
            for batch in ([item] for item in inputs) if cold else [inputs]:
                if cold:
                    self._caches.sweep()
                started = time.perf_counter_ns()
                for item in batch:
                    output = run(item)
                taken += time.perf_counter_ns() - started
        return Timing(taken * 1e-9 / len(inputs), None, output)

    def calls_for(self, call_s: float) -> int:
        return _calls_to_fill(max(SAMPLE_S, RESOLUTIONS * self.resolution_s), call_s)


class FakeClock:
    """A clock on which time passes only by `advance`; `noise` are factors that the next samples are multiplied with.

    Emptying the caches takes `sweep_s`, and a call after that `cold_factor` times as long as a warm one.
    """

    def __init__(
        self,
        noise: Iterable[float] = (),
        *,
        resolution_s: float = 1e-9,
        cache: CacheState = "warm",
        sweep_s: float = 0.0,
        cold_factor: float = 1.0,
    ) -> None:
        self.resolution_s = resolution_s
        self.cache = cache
        self.sweep_s = sweep_s
        self.cold_factor = cold_factor
        self.synchronized = 0
        """How often somebody waited for the device."""
        self._now = 0.0
        self._noise = iter(noise)

    def advance(self, seconds: float) -> None:
        """Let time pass: what a fake kernel does when it is called."""
        self._now += seconds

    def now(self) -> float:
        return self._now

    def synchronize(self) -> None:
        self.synchronized += 1

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = False) -> Timing:
        self._now += self.sweep_s * cold
        started, output = self._now, None
        for item in inputs:
            output = run(item)
        factor = (self.cold_factor if cold else 1.0) * next(self._noise, 1.0)
        return Timing((self._now - started) / len(inputs) * factor, None, output)

    def calls_for(self, call_s: float) -> int:
        return _calls_to_fill(max(SAMPLE_S, RESOLUTIONS * self.resolution_s), call_s)


def _calls_to_fill(span_s: float, call_s: float) -> int:
    return max(1, math.ceil(span_s / call_s)) if call_s > 0 else RESOLUTIONS


def _smallest_step() -> float:
    """The smallest step by which perf_counter was seen to advance, in seconds; what the system says if it never did."""
    readings = [time.perf_counter_ns() for _ in range(1000)]
    steps = [b - a for a, b in pairwise(readings) if b > a]
    return min(steps) * 1e-9 if steps else time.get_clock_info("perf_counter").resolution


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a sample would be timed with it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
