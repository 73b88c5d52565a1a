"""What a call needs: peak bytes on the device above what was alive before, the output included; and what every call leaves behind."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .allocations import Traced, can_trace, trace
from .device_memory import DeviceMemory, TorchMemory
from .resident import rise_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

MEMRAY = "memray (every native allocation)"
NO_MEMRAY = "not measured: memray is not installed (pip install 'kerneldyno[run]'; it exists for Linux and macOS)"
TORCH = "torch CUDA allocator"
FOREIGN = "torch CUDA allocator + growth of device memory in use (not in it: what was freed again within the call)"
CALLS = 7
"""So many calls are traced where they are quick: the first settles what is kept of the last one, the others must leave nothing."""
FEWEST_CALLS = 3
BUDGET_S = 0.05
WINDOWS = 3
CALLS_PER_WINDOW = 6
"""When something stayed, it is looked at again: a leak grows in every one of these windows, a cache that fills does not."""
FEWEST_PER_WINDOW = 2
"""Of slow calls; a ring of 4 blocks that was full before stops growing after the fourth."""
CONFIRMING_S = 0.5
MOST_LOST_BYTES = 2**30
"""The longer look is shorter where it would itself lose more than this."""
UNSEEN_BYTES = 4 * 2**20
UNSEEN_SHARE = 0.1
"""The process may rise by this much more than was allocated: pages are rounded up, huge ones to 2 MiB."""


@dataclass(frozen=True)
class Peak:
    """What one call needed at most."""

    bytes: int | None
    """None: not measured."""
    source: str
    """Which counter it came from, or why there is none."""


@dataclass(frozen=True)
class Count:
    """What calls need and leave behind."""

    peak: Peak
    growth_bytes: int | None
    """Bytes per call that stay allocated from call to call; None: not measured."""


def count(call: Callable[[], object], device: torch.device, *, foreign: bool = False) -> Count:
    """Peak and growth, on a CPU of the same calls. One-time caches belong to neither: the caller has made a call before.

    On CUDA, `foreign` says that a runtime allocates where torch's allocator does not see it, and keeps what it once took:
    then the peak is that of the first call of a fresh arena. The worker must be alone on the device.
    """
    if device.type == "cuda":
        memory = TorchMemory(device)
        peak = device_peak(call, memory, foreign=foreign)
        return Count(peak, device_growth(call, memory, WINDOWS * CALLS_PER_WINDOW))
    if not can_trace():
        return Count(Peak(None, NO_MEMRAY), None)
    traced = trace(call, FEWEST_CALLS, CALLS, BUDGET_S)
    seen = _typical_peak(traced)
    risen = rise_of(call)
    if risen is not None and risen > seen + max(UNSEEN_BYTES, UNSEEN_SHARE * seen):
        peak = Peak(risen, f"rise of the process's resident memory, a lower bound: memray saw {seen} bytes of it")
        return Count(peak, _confirmed_growth(call, traced) or None)  # what is not seen may leak unseen
    return Count(Peak(seen, MEMRAY), _confirmed_growth(call, traced))


def peak_of(call: Callable[[], object], device: torch.device, *, foreign: bool = False) -> Peak:
    """Make one call and return its peak; `foreign` as for `count`."""
    if device.type == "cuda":
        return device_peak(call, TorchMemory(device), foreign=foreign)
    return Peak(trace(call, 1, 1, 0.0)[0].peak_bytes, MEMRAY) if can_trace() else Peak(None, NO_MEMRAY)


def growth_of(call: Callable[[], object], device: torch.device, calls: int = CALLS) -> int | None:
    """Bytes per call that stay allocated from call to call, over at least so many calls; None: not measured.

    What the first of them keeps does not count, nor does what Python's garbage collector would free. A leak that comes less
    often than every sixth call is not seen, nor are objects of up to 512 bytes before they fill an arena of Python's (1 MiB).
    """
    if device.type == "cuda":
        return device_growth(call, TorchMemory(device), calls)
    return _confirmed_growth(call, trace(call, calls, calls, 0.0)) if can_trace() else None


def _typical_peak(traced: list[Traced]) -> int:
    """The highest that more than one call reached: a table of Python's that grew by chance in one of them does not count."""
    return sorted(one.peak_bytes for one in traced)[-2:][0]


def _confirmed_growth(call: Callable[[], object], traced: list[Traced]) -> int:
    """0 unless something stayed; then what stays in every window of a longer look, with the garbage collected."""
    stayed = traced[-1].kept_bytes - traced[0].kept_bytes
    if stayed <= 0:
        return 0
    started = time.perf_counter()
    call()
    seconds, lost = time.perf_counter() - started, stayed / (len(traced) - 1)
    fitting = min(CONFIRMING_S / (seconds + 1e-9), MOST_LOST_BYTES / lost) / WINDOWS
    width = int(min(max(fitting, FEWEST_PER_WINDOW), CALLS_PER_WINDOW))
    calls = WINDOWS * width + 1
    longer = trace(call, calls, calls, 0.0, afterwards=lambda number: number % width or gc.collect())
    return steady_growth([one.kept_bytes for one in longer])


def steady_growth(readings: list[int]) -> int:
    """Bytes per call in the window that grew least; `readings` are the bytes in use after each of at least 4 calls."""
    width = (len(readings) - 1) // WINDOWS
    ends = readings[-(WINDOWS * width + 1) :: width]
    least = min(after - before for before, after in pairwise(ends))
    return max(round(least / width), 0)


def device_peak(call: Callable[[], object], memory: DeviceMemory, *, foreign: bool) -> Peak:
    """Torch's own peak, and what device memory in use grew by outside torch, which is rounded up to whole pages (2 MiB)."""
    inside, outside = _one_call(call, memory)
    if outside and not foreign:
        outside = min(outside, _one_call(call, memory)[1])  # code that was loaded late does not come again
    return Peak(inside + outside, FOREIGN if foreign or outside else TORCH)


def _one_call(call: Callable[[], object], memory: DeviceMemory) -> tuple[int, int]:
    memory.settle()
    base, outside = memory.allocated(), memory.outside()
    memory.reset_peak()
    output = call()
    memory.synchronize()
    grown = memory.peak() - base, max(memory.outside() - outside, 0)
    del output
    return grown


def device_growth(call: Callable[[], object], memory: DeviceMemory, calls: int) -> int:
    """As `growth_of`, from torch's allocator and from device memory in use outside it."""
    width, started = max(calls // WINDOWS, 1), time.perf_counter()
    call()
    memory.settle()
    readings = [memory.allocated() + memory.outside()]
    for _ in range(WINDOWS * width):
        call()
        memory.settle()
        readings.append(memory.allocated() + memory.outside())
        if len(readings) > WINDOWS * FEWEST_PER_WINDOW and time.perf_counter() - started > CONFIRMING_S:
            break
    return steady_growth(readings)
