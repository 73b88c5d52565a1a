"""Clocks that time a run of calls: on the CPU by the wall, on CUDA by events in the stream, and a virtual one for tests."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch

    from .cuda import Cuda, Event

SAMPLE_S = 1e-3
"""A sample on the CPU lasts at least this long …"""
RESOLUTIONS = 1000
"""… and at least this many times the clock's resolution."""
SHORT_CALL_S = 10e-6
"""A CUDA call below this is lost between two events: such calls are timed SHORT_CALLS at a time."""
SHORT_CALLS = 20

Callee = Callable[[Any], Any]


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

    def now(self) -> float:
        """Monotonic seconds since some moment: for budgets and warm-up, not for samples."""

    def synchronize(self) -> None:
        """Wait until the device has nothing left to do."""

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = True) -> Timing:
        """Call `run(x)` for each x of `inputs` between two readings, the whole device idle at both ends.

        `cold` empties the device's cache first where that is in our hands (CUDA). On the CPU it says nothing: there the
        caller decides with the number of inputs, by rotation, what a call finds in the cache.
        """

    def calls_for(self, call_s: float) -> int:
        """How many calls of about `call_s` seconds a sample needs."""


class CpuClock:
    """The wall clock, around as many calls as it takes to read it well."""

    def __init__(self) -> None:
        self.resolution_s = _smallest_step()

    def now(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        """Nothing to wait for: calls on the CPU are done when they return."""

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = True) -> Timing:  # noqa: ARG002 - see Clock
        output = None
        with _no_garbage_collection():
            started = time.perf_counter_ns()
            for item in inputs:
                output = run(item)
            ended = time.perf_counter_ns()
        return Timing((ended - started) * 1e-9 / len(inputs), None, output)

    def calls_for(self, call_s: float) -> int:
        return _calls_to_fill(max(SAMPLE_S, RESOLUTIONS * self.resolution_s), call_s)


class FakeClock:
    """A clock on which time passes only by `advance`; `noise` are factors that the next samples are multiplied with."""

    def __init__(self, noise: Iterable[float] = (), *, resolution_s: float = 1e-9) -> None:
        self.resolution_s = resolution_s
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

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = True) -> Timing:  # noqa: ARG002 - see Clock
        started, output = self._now, None
        for item in inputs:
            output = run(item)
        return Timing((self._now - started) / len(inputs) * next(self._noise, 1.0), None, output)

    def calls_for(self, call_s: float) -> int:
        return _calls_to_fill(max(SAMPLE_S, RESOLUTIONS * self.resolution_s), call_s)


@dataclass
class _Queueing:
    """What is known of putting one callee's work into the stream."""

    call_s: float | None = None
    """Host seconds that one call takes to queue; None before it was seen."""
    holdable: bool = True


class CudaClock:
    """Events in the stream, which is held back by a spinning kernel until all calls of a sample are queued.

    So the device goes from call to call without waiting for the host, and launch jitter stays out of the sample. Work on
    streams of its own that outlives the last event is waited for and counted. Makes `device` the current one.
    """

    resolution_s = 0.5e-6
    """As the CUDA documentation states it for events."""

    RETAKES = 4
    MOST_HOLD_S = 0.1
    FIRST_HOLD_S = 1e-4
    HOLD_MARGIN = 1.5
    CHUNK_S = 2e-3
    """Calls are held in portions that queue in about this long: a stream takes some thousand launches, then blocks."""
    MOST_HELD_CALLS = 32
    STRAY_S = 50e-6
    """Device time after the last event from which on it is work that the events did not see, not the cost of asking."""

    def __init__(self, device: torch.device | str, *, api: Cuda | None = None) -> None:
        if api is None:
            from .cuda import TorchCuda

            api = TorchCuda(device)
        self._api = api
        self._queueing: WeakKeyDictionary[Callee, _Queueing] = WeakKeyDictionary()

    def now(self) -> float:
        return self._api.now()

    def synchronize(self) -> None:
        self._api.synchronize()

    def calls_for(self, call_s: float) -> int:
        return SHORT_CALLS if call_s < SHORT_CALL_S else 1

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = True) -> Timing:
        known = self._known(run)
        seconds, held, output, done = 0.0, True, None, 0
        with _no_garbage_collection():
            while done < len(inputs):
                portion = inputs[done : done + self._portion(known)]
                took, output = self._device_time(run, portion, known, cold=cold)
                seconds += took
                held &= known.holdable
                done += len(portion)
            host = self._host_time(run, inputs) if cold else None
        return Timing(seconds / len(inputs), host, output, held)

    def _known(self, run: Callee) -> _Queueing:
        try:
            return self._queueing.setdefault(run, _Queueing())
        except TypeError:  # cannot be referred to weakly, or not hashed: learn it anew each time
            return _Queueing()

    def _portion(self, known: _Queueing) -> int:
        """How many calls to hold at once."""
        if known.call_s is None:
            return 1
        return min(max(int(self.CHUNK_S / max(known.call_s, 1e-9)), 1), self.MOST_HELD_CALLS)

    def _device_time(self, run: Callee, inputs: Sequence[Any], known: _Queueing, *, cold: bool) -> tuple[float, object]:
        """Seconds on the device for all `inputs`; retaken with a longer hold when the device got ahead of the queueing."""
        hold_s = self.FIRST_HOLD_S if known.call_s is None else self.HOLD_MARGIN * known.call_s * len(inputs)
        retakes = 0
        while True:
            if not known.holdable:
                return self._attempt(run, inputs, 0.0, cold=cold)[:2]
            seconds, output, queued_s, early = self._attempt(run, inputs, hold_s, cold=cold)
            if not early:
                known.call_s = queued_s / len(inputs)
                return seconds, output
            hold_s = max(2 * hold_s, self.HOLD_MARGIN * queued_s)
            retakes += 1
            if retakes > self.RETAKES or hold_s > self.MOST_HOLD_S:
                known.holdable = False  # it waits for the device itself: the longer the hold, the longer the queueing

    def _attempt(self, run: Callee, inputs: Sequence[Any], hold_s: float, *, cold: bool) -> tuple[float, object, float, bool]:
        """(device seconds, last output, host seconds spent queueing, whether the device began before queueing ended)."""
        api, output = self._api, None
        start, end = api.event(), api.event()
        if cold:
            api.flush()
        api.synchronize()
        if hold_s:
            api.hold(hold_s)
        start.record()
        queueing = api.now()
        for item in inputs:
            output = run(item)
        queued_s = api.now() - queueing
        end.record()
        early = start.query()
        return self._between(start, end), output, queued_s, early

    def _between(self, start: Event, end: Event) -> float:
        """Seconds from event to event, and on to the moment when the whole device is idle if that is noticeably later."""
        end.synchronize()
        fired = self._api.now()
        self._api.synchronize()
        stray_s = self._api.now() - fired
        seconds = start.seconds_until(end)
        return seconds + stray_s if stray_s > max(self.STRAY_S, 0.05 * seconds) else seconds

    def _host_time(self, run: Callee, inputs: Sequence[Any]) -> float:
        """Seconds per call from end to end, nothing held back."""
        self._api.flush()
        self._api.synchronize()
        started = self._api.now()
        for item in inputs:
            run(item)
        self._api.synchronize()
        return (self._api.now() - started) / len(inputs)


def _calls_to_fill(span_s: float, call_s: float) -> int:
    return max(1, math.ceil(span_s / call_s)) if call_s > 0 else RESOLUTIONS


def _smallest_step() -> float:
    """The smallest step by which perf_counter was seen to advance, in seconds."""
    readings = [time.perf_counter_ns() for _ in range(1000)]
    return min(b - a for a, b in pairwise(readings) if b > a) * 1e-9


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a sample would be timed with it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
