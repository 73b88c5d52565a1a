"""The clock for CUDA: events in the stream, which is held back until all calls of a sample are queued."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .clock import CacheState, Callee, Timing, no_garbage_collection

if TYPE_CHECKING:
    import torch

    from .cuda import Cuda, Event

SHORT_CALL_S = 10e-6
"""A call below this is lost between two events: such calls are timed SHORT_CALLS at a time."""
SHORT_CALLS = 20


@dataclass
class _Queueing:
    """What is known of putting one callee's work into the stream."""

    call_s: float | None = None
    """Host seconds that one call takes to queue; None before it was seen."""
    device_s: float = math.inf
    """Seconds on the device per call, as last seen."""
    holdable: bool = True


class CudaClock:
    """Events in the stream, which is held back by a spinning kernel until all calls of a sample are queued.

    So the device goes from call to call without waiting for the host, and launch jitter stays out of the sample. Work on
    streams of its own that outlives the last event is waited for and counted. Makes `device` the current one.
    """

    cache: CacheState = "cold"
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

    def time(self, run: Callee, inputs: Sequence[Any], *, cold: bool = False) -> Timing:
        known = self._known(run)
        seconds, held, output, done = 0.0, True, None, 0
        with no_garbage_collection():
            while done < len(inputs):
                portion = inputs[done : done + self._portion(known)]
                took, output = self._device_time(run, portion, known, cold=cold)
                seconds += took
                known.device_s = took / len(portion)
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
        """How many calls to hold at once, between one pair of events: never fewer than SHORT_CALLS of short ones."""
        if known.call_s is None:
            return 1
        fewest = SHORT_CALLS if known.device_s < SHORT_CALL_S else 1
        return min(max(int(self.CHUNK_S / max(known.call_s, 1e-9)), fewest), self.MOST_HELD_CALLS)

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
