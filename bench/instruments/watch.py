"""What a device says of itself while it is measured: clock, temperature, and whether it holds back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from .nvml import Gpu


@dataclass(frozen=True)
class Reading:
    """One look at the device."""

    mhz: float | None = None
    temperature_c: float | None = None
    reasons: tuple[str, ...] = ()
    """Why it runs slower than it could, in words; empty when it does not."""

    @property
    def throttled(self) -> bool:
        return bool(self.reasons)


class Watch(Protocol):
    """Reads a device's state; never between samples, only before and after a round."""

    def read(self) -> Reading:
        """Look once."""


class NoWatch:
    """For devices that say nothing of themselves, like a CPU in a virtual machine."""

    def read(self) -> Reading:
        return Reading()


@dataclass(frozen=True)
class GpuWatch:
    """Asks the driver. Being at the power cap is how a large GPU works at full load, not throttling."""

    gpu: Gpu

    def read(self) -> Reading:
        return Reading(mhz=self.gpu.sm_mhz(), temperature_c=self.gpu.temperature_c(), reasons=self.gpu.slowdowns())


def find_watch(device: torch.device) -> Watch:
    """What watches this device; a device that says nothing of itself gets NoWatch."""
    if device.type != "cuda":
        return NoWatch()
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
