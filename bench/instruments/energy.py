"""Meters of power and energy: NVML for a GPU board, RAPL for CPU packages, a made-up one for tests; or the reason why not."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import nvml

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import FakeClock
    from .nvml import Gpu

POWERCAP = Path("/sys/class/powercap")
NO_RAPL = "not measured: this machine exposes no energy counter (RAPL)"


@dataclass(frozen=True)
class Pace:
    """How a counter wants to be read, in seconds."""

    window_s: float
    """The shortest window from which joules are taken."""
    lead_s: float
    """How long the device is busy before a window begins: until power and clocks have risen."""
    heat_s: float
    """The same before the first window, whose temperature all others keep: a cold device would have to cool down for each."""
    power_s: float
    """How long power is read where no window is taken."""
    idle_s: float
    """The shortest stretch from which idle power is taken …"""
    settle_s: float
    """… after so much rest, in which clocks and voltage fall."""
    poll_s: float
    """Between two looks at the counter while the device rests."""


NVML_PACE = Pace(window_s=5.0, lead_s=1.0, heat_s=10.0, power_s=1.0, idle_s=2.5, settle_s=2.0, poll_s=0.005)
"""Its counter moves about every 100 ms: 50 times in a window."""
RAPL_PACE = Pace(window_s=0.5, lead_s=0.1, heat_s=1.0, power_s=0.3, idle_s=0.5, settle_s=0.2, poll_s=0.001)
"""Its counter moves about every millisecond."""


class PowerMeter(Protocol):
    """One device's power; a reading that does not exist is None, never 0."""

    energy_source: str
    """Which counter `energy_j` reads, as it is recorded beside the numbers."""
    power_source: str
    """The same for `power_w`."""
    pace: Pace

    @property
    def reason(self) -> str | None:
        """Why nothing can be measured, in a sentence; None when it can."""

    def power_w(self) -> float | None:
        """Watts now."""

    def energy_j(self) -> float | None:
        """Joules since some moment, as of the counter's last update. A number below the one before means that it was reset."""


class NvmlMeter:
    """A GPU board."""

    energy_source = "nvml total energy"
    power_source = "nvml power_instant"
    pace = NVML_PACE

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    @property
    def reason(self) -> str | None:
        if self._gpu.slice is not None:
            return "not measured: the device is a MIG instance, and power is known of the whole board only"
        if self.power_w() is None and self.energy_j() is None:
            return "not measured: this GPU's driver reports neither power nor energy (NVML)"
        return None

    def power_w(self) -> float | None:
        return self._gpu.power_w()

    def energy_j(self) -> float | None:
        return self._gpu.energy_j()


class RaplMeter:
    """The CPU packages of a Linux machine: /sys/class/powercap/intel-rapl:N, which AMD's processors use as well."""

    energy_source = power_source = "rapl package"
    pace = RAPL_PACE

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
        """Joules of all packages since this meter was made; read at least once per half turn of the counter (minutes)."""
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
            self._total_uj += _moved(self._last, now, turn)
        self._last = now
        return self._total_uj * 1e-6


class NoMeter:
    """A device whose power nobody knows."""

    energy_source = power_source = "none"
    pace = RAPL_PACE

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
    """A made-up device and its counter, replayed against a clock.

    The device draws `idle_w` except while it is at `work`, which lets time pass. The counter shows what was drawn until
    its last update, every `period_s` from `phase_s` on, rounded down to `step_j`. `shown(now_s, joules)` may falsify what
    it shows (None: not readable), `instant` scales the power readings (None: there are none).
    """

    energy_source, power_source = "fake total energy", "fake power_instant"
    reason: str | None = None

    def __init__(
        self,
        clock: FakeClock,
        *,
        idle_w: float = 50.0,
        period_s: float = 0.1,
        phase_s: float = 0.0,
        step_j: float = 1e-3,
        shown: Callable[[float, float], float | None] = lambda _, joules: joules,
        instant: float | None = 1.0,
        pace: Pace = NVML_PACE,
    ) -> None:
        self._clock, self._idle_w, self._shown, self._instant = clock, idle_w, shown, instant
        self._period_s, self._phase_s, self._step_j = period_s, phase_s, step_j
        self.pace = pace
        self._starts, self._spans = [0.0], [(0.0, 0.0, 0.0)]

    def work(self, seconds: float, watts: float) -> None:
        """Let time pass with the device drawing so much."""
        start = self._clock.now()
        self._spans.append((self._extra_j(start), start + seconds, watts - self._idle_w))
        self._starts.append(start)
        self._clock.advance(seconds)

    def drawn_j(self, until_s: float) -> float:
        """What the device really drew until then."""
        return 1000.0 + self._idle_w * until_s + self._extra_j(until_s)

    def energy_j(self) -> float | None:
        now = self._clock.now()
        updated = floor((now - self._phase_s) / self._period_s + 1e-9) * self._period_s + self._phase_s
        return self._shown(now, floor(self.drawn_j(updated) / self._step_j + 1e-9) * self._step_j)

    def power_w(self) -> float | None:
        busy = self._clock.now() <= self._spans[-1][1]
        watts = self._idle_w + (self._spans[-1][2] if busy else 0.0)
        return None if self._instant is None else self._instant * watts

    def _extra_j(self, until_s: float) -> float:
        """Drawn above idle."""
        place = max(bisect_right(self._starts, until_s) - 1, 0)
        before, end, watts = self._spans[place]
        return before + watts * max(min(until_s, end) - self._starts[place], 0.0)


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


def _moved(last: int, now: int, turn: int) -> int:
    """How far a counter went that turns over at `turn`.

    More than half a turn ahead would be minutes at full power, and looks are closer than that: a number that falls so
    far back was reset, which is a step backwards.
    """
    ahead = now - last if now >= last else now - last + turn
    return now - last if now < last and ahead > turn // 2 else ahead


def _is_package(folder: Path) -> bool:
    """Packages only: their parts (core, dram) and the platform (psys) would be counted twice."""
    try:
        return (folder / "name").read_text().startswith("package")
    except OSError:
        return False
