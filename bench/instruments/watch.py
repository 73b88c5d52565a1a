"""What a device says of itself while it is measured: clock, temperature, and whether it holds back."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import processor

if TYPE_CHECKING:
    import torch

    from .nvml import Gpu

PROC_STAT = Path("/proc/stat")
BUSY_FIELDS = (1, 2, 3, 6, 7)
"""Where a processor's line in /proc/stat holds the time that it worked, its name counted as 0: user, nice, system, interrupts …"""
STEAL_FIELD = 8
"""… and the time that the hypervisor gave to other virtual machines."""
LEAST_SPAN_S = 1.0
"""These counters advance in hundredths of a second: over less than this they say nothing about shares."""


@dataclass(frozen=True)
class Reading:
    """One look at the device. What is counted is counted since it booted: two readings tell what happened between them."""

    mhz: float | None = None
    temperature_c: float | None = None
    reasons: tuple[str, ...] = ()
    """Why it runs slower than it could, in words; empty when it does not."""
    at_s: float = 0.0
    """When it was taken, in monotonic seconds."""
    quota_periods: int | None = None
    """Scheduling periods in which this container had used up its quota of processor time, and was made to wait."""
    stolen_s: float | None = None
    """Seconds that a virtual machine's processors were given to others although they had work; mean of those of this process."""
    others_s: float | None = None
    """Seconds that they worked for other processes; mean of those of this process."""


def slowdowns(before: Reading, after: Reading) -> tuple[str, ...]:
    """Why the device held back at either time or between; empty when it did not."""
    reasons = {*before.reasons, *after.reasons}
    if before.quota_periods is not None and after.quota_periods is not None and after.quota_periods > before.quota_periods:
        reasons.add(f"the container's CPU quota was used up in {after.quota_periods - before.quota_periods} periods")
    return tuple(sorted(reasons))


def stolen_share(before: Reading, after: Reading) -> float | None:
    """The share of the processors' time that was given to other virtual machines; None where that is not known."""
    return _share(before.stolen_s, after.stolen_s, after.at_s - before.at_s)


def others_share(before: Reading, after: Reading) -> float | None:
    """The share of the processors' time that other processes of this machine took; None where that is not known."""
    return _share(before.others_s, after.others_s, after.at_s - before.at_s)


def _share(before_s: float | None, after_s: float | None, span_s: float) -> float | None:
    if before_s is None or after_s is None or span_s < LEAST_SPAN_S:
        return None
    return max((after_s - before_s) / span_s, 0.0)


class Watch(Protocol):
    """Reads a device's state; never between samples, only before and after a round."""

    def read(self) -> Reading:
        """Look once."""


class NoWatch:
    """For devices that say nothing of themselves."""

    def read(self) -> Reading:
        return Reading()


@dataclass(frozen=True)
class GpuWatch:
    """Asks the driver. Being at the power cap is how a large GPU works at full load, not throttling."""

    gpu: Gpu

    def read(self) -> Reading:
        return Reading(mhz=self.gpu.sm_mhz(), temperature_c=self.gpu.temperature_c(), reasons=self.gpu.slowdowns())


@dataclass(frozen=True)
class CpuWatch:
    """Asks Linux what kept this process from its processors: the container's quota, the hypervisor's guests, other processes.

    Where one of the files is missing, what it counts is None.
    """

    cgroup: Path = processor.CGROUP
    proc_stat: Path = PROC_STAT

    def read(self) -> Reading:
        stolen_s, busy_s = self._processors()
        used = os.times()
        own_s = (used.user + used.system) / len(os.sched_getaffinity(0))
        return Reading(
            at_s=time.monotonic(),
            quota_periods=self._quota_periods(),
            stolen_s=stolen_s,
            others_s=None if busy_s is None else busy_s - own_s,
        )

    def _quota_periods(self) -> int | None:
        """From cpu.stat of the container's control group, version 2 or 1."""
        for path in (self.cgroup / "cpu.stat", self.cgroup / "cpu" / "cpu.stat"):
            with suppress(OSError, ValueError, KeyError):
                return int(dict(line.split() for line in path.read_text().splitlines())["nr_throttled"])
        return None

    def _processors(self) -> tuple[float | None, float | None]:
        """(stolen, busy) seconds, means over the processors that this process may use."""
        own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        with suppress(OSError, ValueError, IndexError, ZeroDivisionError):
            lines = [words for line in self.proc_stat.read_text().splitlines() if (words := line.split()) and words[0] in own]
            ticks_per_s = os.sysconf("SC_CLK_TCK") * len(lines)
            stolen = sum(int(words[STEAL_FIELD]) for words in lines)
            busy = sum(int(words[field]) for words in lines for field in BUSY_FIELDS)
            return stolen / ticks_per_s, busy / ticks_per_s
        return None, None


def find_watch(device: torch.device) -> Watch:
    """What watches this device; a GPU whose driver does not answer gets NoWatch."""
    if device.type != "cuda":
        return CpuWatch()
    import torch

    from . import nvml

    index = device.index or 0
    gpu = nvml.find(index, uuid=str(torch.cuda.get_device_properties(index).uuid))
    return GpuWatch(gpu) if gpu else NoWatch()


@dataclass
class FakeWatch:
    """Replays readings; the last one stays."""

    readings: list[Reading] = field(default_factory=lambda: [Reading()])

    def read(self) -> Reading:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
