"""Power and energy while a kernel runs back to back: from NVML on a GPU, from RAPL on a CPU, or the reason why not."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from ..records import Energy
from . import nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .nvml import Gpu

POWERCAP = Path("/sys/class/powercap")
NO_RAPL = "not measured: this machine exposes no energy counter (RAPL)"
POLL_S = 0.02
RAMP_S = 0.2
"""Readings of the first moments still show the idle board."""
COUNTER_WINDOW_S = 5.0
"""NVML's energy counter moves about every 100 ms: in a shorter window its ends weigh too much."""


class PowerMeter(Protocol):
    """One device's power; a reading that does not exist is None, never 0."""

    source: str
    """Which counter, as it is recorded beside the numbers."""
    counter_window_s: float
    """The shortest window over which `energy_j` may be trusted."""

    @property
    def reason(self) -> str | None:
        """Why nothing can be measured, in a sentence; None when it can."""

    def power_w(self) -> float | None:
        """Watts now."""

    def energy_j(self) -> float | None:
        """Joules since some moment; never decreases."""


class NvmlMeter:
    """A GPU board."""

    source = "nvml"
    counter_window_s = COUNTER_WINDOW_S

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    @property
    def reason(self) -> str | None:
        if self._gpu.slice is not None:
            return "not measured: the device is a MIG instance, and power is known of the whole board only"
        if self.power_w() is None and not self.energy_j():
            return "not measured: this GPU's driver reports neither power nor energy (NVML)"
        return None

    def power_w(self) -> float | None:
        return self._gpu.power_w()

    def energy_j(self) -> float | None:
        return self._gpu.energy_j()


class RaplMeter:
    """The CPU packages of a Linux machine: /sys/class/powercap/intel-rapl:N, which AMD's processors use as well."""

    source = "rapl package"
    counter_window_s = 0.5

    def __init__(self, root: Path = POWERCAP) -> None:
        self._domains = [_Domain(folder) for folder in sorted(root.glob("intel-rapl:*")) if _is_package(folder)]

    @property
    def reason(self) -> str | None:
        if not self._domains:
            return NO_RAPL
        if self.energy_j() is None:
            return "not measured: this user may not read the energy counters (RAPL): make energy_uj readable, or run as root"
        return None

    def power_w(self) -> float | None:
        """None: RAPL counts energy only."""
        return None

    def energy_j(self) -> float | None:
        """Joules of all packages since this meter was made; read at least once per turn of the counter (minutes)."""
        found = [domain.energy_j() for domain in self._domains]
        return sum(value for value in found if value is not None) if found and None not in found else None


class _Domain:
    """One package's counter, which turns over at `max_energy_range_uj`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: int | None = None
        self._total_uj = 0

    def energy_j(self) -> float | None:
        try:
            now = int((self._folder / "energy_uj").read_text())
            turn = int((self._folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return None
        if self._last is not None:
            self._total_uj += now - self._last if now >= self._last else now - self._last + turn
        self._last = now
        return self._total_uj * 1e-6


class NoMeter:
    """A device whose power nobody knows."""

    source = "none"
    counter_window_s = 0.0

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def reason(self) -> str | None:
        return self._reason

    def power_w(self) -> float | None:
        return None

    def energy_j(self) -> float | None:
        return None


class FakeMeter:
    """Replays readings; the last one stays."""

    def __init__(self, power: Iterable[float | None] = (None,), energy: Iterable[float | None] = (None,), *, window_s: float = 0.0) -> None:
        self.source = "fake"
        self.counter_window_s = window_s
        self.reason: str | None = None
        self._power, self._energy = _staying(power), _staying(energy)

    def power_w(self) -> float | None:
        return next(self._power)

    def energy_j(self) -> float | None:
        return next(self._energy)


def find_meter(device: Any) -> PowerMeter:
    """The meter of a device ("cpu", "cuda:1", or a torch.device); a NoMeter with its reason where there is none."""
    kind, _, index = str(device).partition(":")
    if kind != "cuda":
        rapl = RaplMeter()
        return NoMeter(rapl.reason) if rapl.reason else rapl
    gpu = nvml.of_torch(str(device)) or nvml.find(int(index or 0))
    if gpu is None:
        return NoMeter("not measured: the NVIDIA driver does not answer (NVML)")
    meter = NvmlMeter(gpu)
    return NoMeter(meter.reason) if meter.reason else meter


def measure_power(call_many: Callable[[float], tuple[int, float]], meter: PowerMeter, seconds: float) -> Energy:
    """Power and gross energy per call of what `call_many(seconds)` runs back to back.

    `call_many` returns (calls made, seconds they took). Where the meter has a counter and the window is long enough for
    it, both numbers come from the counter; otherwise from the mean of power readings, which is an indication only.
    """
    if meter.reason:
        return Energy(reason=meter.reason)
    with _sampling(meter) as readings:
        before = meter.energy_j()
        calls, elapsed = call_many(seconds)
        after = meter.energy_j()
    if calls < 1 or elapsed <= 0:
        return Energy(reason="not measured: no call was made in the time given")
    if before is not None and after is not None and after > before and elapsed >= meter.counter_window_s:
        joules = after - before
        return Energy(power_w=joules / elapsed, energy_j=joules / calls, source=_named(meter, "total energy"))
    watts = [value for when, value in readings if when >= min(RAMP_S, elapsed / 4)]
    if watts and fmean(watts) > 0:
        mean = fmean(watts)
        return Energy(power_w=mean, energy_j=mean * elapsed / calls, source=_named(meter, "power_instant (indicative)"))
    return Energy(reason=_why_nothing(meter, before, after, elapsed))


@contextmanager
def _sampling(meter: PowerMeter) -> Iterator[list[tuple[float, float]]]:
    """Read the power in a thread, as (seconds since the start, watts); no thread where the meter has only a counter."""
    readings: list[tuple[float, float]] = []
    if meter.power_w() is None:
        yield readings
        return
    stop, started = threading.Event(), monotonic()

    def poll() -> None:
        while not stop.wait(POLL_S):
            value = meter.power_w()
            if value is not None:
                readings.append((monotonic() - started, value))

    thread = threading.Thread(target=poll, name="power meter", daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()


def _named(meter: PowerMeter, counter: str) -> str:
    """The source as recorded: NVML has two counters, the others one."""
    return f"{meter.source} {counter}" if isinstance(meter, NvmlMeter | FakeMeter) else meter.source


def _why_nothing(meter: PowerMeter, before: float | None, after: float | None, elapsed: float) -> str:
    if before is None or after is None:
        return f"not measured: the energy counter ({meter.source}) could not be read and there was no power reading"
    if after <= before:
        return f"not measured: the energy counter ({meter.source}) did not move in {elapsed:.2f} s"
    return f"not measured: {elapsed:.2f} s are too short for the energy counter ({meter.source}), which needs {meter.counter_window_s:g} s"


def _is_package(folder: Path) -> bool:
    """Packages only: their parts (core, dram) and the platform (psys) would be counted twice."""
    try:
        return (folder / "name").read_text().startswith("package")
    except OSError:
        return False


def _staying(values: Iterable[float | None]) -> Iterator[float | None]:
    given = list(values)
    return chain(given, repeat(given[-1]))
