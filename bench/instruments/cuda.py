"""The few things that timing asks of CUDA, through torch: events, a hold on the stream, an emptied cache."""

from __future__ import annotations

import ctypes
import time
from typing import Any, Protocol

import torch

CALIBRATION_CYCLES = 20_000_000


class Event(Protocol):
    """A mark in the stream."""

    def record(self) -> None:
        """Put the mark behind everything that is queued."""

    def query(self) -> bool:
        """Has the device passed it?"""

    def synchronize(self) -> None:
        """Wait until the device has passed it."""

    def seconds_until(self, end: Any) -> float:
        """Device seconds from this mark to a later one, both passed."""


class Cuda(Protocol):
    """What CudaClock needs; tests give it a simulated device."""

    def now(self) -> float:
        """Monotonic host seconds."""

    def synchronize(self) -> None:
        """Wait until every stream of the device is idle."""

    def event(self) -> Event:
        """A new mark for the current stream."""

    def hold(self, seconds: float) -> None:
        """Queue a kernel that keeps the current stream busy for about so long."""

    def flush(self) -> None:
        """Queue the eviction of what the last-level cache holds."""


class TorchCuda:
    """The real one. It makes `device` the current device and gives back a carved-out L2 cache.

    The hold is a kernel that counts cycles, not one that waits for a flag: that would deadlock with a call that
    synchronizes.
    """

    def __init__(self, device: torch.device | str) -> None:
        torch.cuda.set_device(device)
        cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        reset_persisting_cache()
        self._sweep = torch.empty(2 * cache_bytes, dtype=torch.uint8, device=device)
        self._cycles_per_s = max(self._spin_rate() for _ in range(3))

    def now(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def event(self) -> Event:
        return _TorchEvent()

    def hold(self, seconds: float) -> None:
        torch.cuda._sleep(int(seconds * self._cycles_per_s))  # type: ignore[no-untyped-call]  # noqa: SLF001 - the only spin torch has

    def flush(self) -> None:
        self._sweep.zero_()

    def _spin_rate(self) -> float:
        """Cycles per second; the highest of some, since a rate taken at a low clock makes holds too short."""
        start, end = self.event(), self.event()
        start.record()
        torch.cuda._sleep(CALIBRATION_CYCLES)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as above
        end.record()
        end.synchronize()
        return CALIBRATION_CYCLES / start.seconds_until(end)


class _TorchEvent:
    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def record(self) -> None:
        self._event.record()

    def query(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        self._event.synchronize()

    def seconds_until(self, end: _TorchEvent) -> float:
        return float(self._event.elapsed_time(end._event)) * 1e-3


def reset_persisting_cache() -> bool:
    """Give the part of the L2 cache that someone set aside back to everybody; False where the driver has no such call."""
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache() == 0)
    except (OSError, AttributeError):
        return False
