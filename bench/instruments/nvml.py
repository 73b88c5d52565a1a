"""NVIDIA GPUs as their driver describes them (NVML), without torch; no GPU or no driver is an empty list, never an error."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

POWER_INSTANT = 186
"""Field id: board power now, where nvmlDeviceGetPowerUsage is an average over the last second (Ampere and newer)."""
SM_CLOCK = 1
CORE_TEMPERATURE = 0

CLOCK_EVENTS = {
    0x002: "clocks set by the user",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "thermal slowdown by the driver",
    0x040: "thermal slowdown by the hardware",
    0x080: "power brake",
    0x100: "display clocks",
}
"""Why a clock is not at its maximum, by NVML's bit; idleness (0x1) is no reason."""
SLOWDOWNS = frozenset({0x008, 0x020, 0x040, 0x080})
"""Those that say that something is wrong. A large GPU at full load is at its power cap all the time."""


@dataclass(frozen=True)
class Gpu:
    """One device that CUDA programs see; every reading is None where the driver does not give it."""

    index: int
    """As CUDA counts, with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    uuid: str
    """Never recorded: it names one piece of hardware."""
    api: Any
    handle: Any
    """The board."""
    slice: Any = None
    """The MIG instance, where it is one: power, clocks and temperature are those of the whole board."""

    def read(self, function: str, *arguments: Any) -> Any:
        """What an NVML function says of the board; None where it is not supported."""
        return self._ask(self.handle, function, *arguments)

    @property
    def name(self) -> str:
        return _text(self._ask(self.slice or self.handle, "nvmlDeviceGetName")) or "NVIDIA GPU"

    @property
    def memory_bytes(self) -> int:
        memory = self._ask(self.slice or self.handle, "nvmlDeviceGetMemoryInfo")
        return int(memory.total) if memory else 0

    @property
    def used_bytes(self) -> int | None:
        memory = self._ask(self.slice or self.handle, "nvmlDeviceGetMemoryInfo")
        return int(memory.used) if memory else None

    @property
    def capability(self) -> tuple[int, int] | None:
        found = self.read("nvmlDeviceGetCudaComputeCapability")
        return (int(found[0]), int(found[1])) if found else None

    @property
    def pci_bus_id(self) -> str:
        info = self.read("nvmlDeviceGetPciInfo")
        return _text(info.busId) if info else ""

    @property
    def driver(self) -> str | None:
        return _text(_quietly(self.api, "nvmlSystemGetDriverVersion")) or None

    @property
    def power_limit_w(self) -> float | None:
        return _scaled(self.read("nvmlDeviceGetEnforcedPowerLimit"), 1e-3)

    @property
    def max_sm_mhz(self) -> float | None:
        return _scaled(self.read("nvmlDeviceGetMaxClockInfo", SM_CLOCK), 1.0)

    def sm_mhz(self) -> float | None:
        return _scaled(self.read("nvmlDeviceGetClockInfo", SM_CLOCK), 1.0)

    def temperature_c(self) -> float | None:
        return _scaled(self.read("nvmlDeviceGetTemperature", CORE_TEMPERATURE), 1.0)

    def clock_events(self) -> tuple[str, ...]:
        """Every reason why the clock is not at its maximum now, in words."""
        return self._events(frozenset(CLOCK_EVENTS))

    def slowdowns(self) -> tuple[str, ...]:
        """Only the reasons for which a measurement taken now is not to be believed: heat, and a board short of power."""
        return self._events(SLOWDOWNS)

    def power_w(self) -> float | None:
        """Watts drawn by the board now; a board draws some, so 0 is no reading."""
        values = self.read("nvmlDeviceGetFieldValues", [POWER_INSTANT])
        if values and values[0].nvmlReturn == 0 and values[0].value.uiVal:
            return float(values[0].value.uiVal) * 1e-3
        capability = self.capability
        if capability and capability < (8, 0):  # before Ampere the plain reading is not averaged
            return _scaled(self.read("nvmlDeviceGetPowerUsage") or None, 1e-3)
        return None

    def energy_j(self) -> float | None:
        """Joules drawn by the board since the driver was loaded; updated about every 100 ms. 0 is how some drivers say no."""
        return _scaled(self.read("nvmlDeviceGetTotalEnergyConsumption") or None, 1e-3)

    def _events(self, chosen: frozenset[int]) -> tuple[str, ...]:
        bits = self.read("nvmlDeviceGetCurrentClocksEventReasons") or 0
        return tuple(word for bit, word in CLOCK_EVENTS.items() if bit & bits and bit in chosen)

    def _ask(self, handle: Any, function: str, *arguments: Any) -> Any:
        return _quietly(self.api, function, handle, *arguments)


def devices(api: Any = None, environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that a CUDA program started now would see, in its order; empty where there are none or no driver.

    CUDA_VISIBLE_DEVICES is honoured: indices, beginnings of UUIDs, MIG instances. Indices are taken in PCI order, which
    is NVML's, and CUDA's with CUDA_DEVICE_ORDER=PCI_BUS_ID, as workers are started.
    """
    api = api or _driver()
    if api is None:
        return []
    boards = [_board(api, i) for i in range(_quietly(api, "nvmlDeviceGetCount") or 0)]
    present = [board for board in boards if board is not None]
    visible = _visible(present, environ.get("CUDA_VISIBLE_DEVICES"))
    return [Gpu(i, gpu.uuid, gpu.api, gpu.handle, gpu.slice) for i, gpu in enumerate(visible)]


def find(index: int, *, uuid: str | None = None, pci_bus_id: str | None = None, api: Any = None) -> Gpu | None:
    """The GPU that torch calls "cuda:index".

    What torch knows of it (`get_device_properties(index).uuid`) wins over the number, since CUDA may count otherwise.
    """
    found = devices(api)
    for gpu in found:
        if uuid and uuid.lower().removeprefix("gpu-") == gpu.uuid.lower().removeprefix("gpu-"):
            return gpu
    for gpu in found:
        if pci_bus_id and _bus(pci_bus_id) == _bus(gpu.pci_bus_id) and gpu.slice is None:
            return gpu
    return next((gpu for gpu in found if gpu.index == index), None)


def of_torch(device: Any) -> Gpu | None:
    """The GPU behind a torch.device; for processes that have imported torch."""
    import torch

    place = torch.device(device)
    if place.type != "cuda" or not torch.cuda.is_available():
        return None
    number = str(place).partition(":")[2]
    index = int(number) if number else torch.cuda.current_device()
    return find(index, uuid=str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) or None)


@functools.cache
def _driver() -> Any:
    """The pynvml module with the driver opened; None where there is none. It stays open as long as the process."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _quietly(api: Any, function: str, *arguments: Any) -> Any:
    """What an NVML function returns; None where driver, board or library do not have it."""
    call: Callable[..., Any] | None = getattr(api, function, None)
    if call is None:
        return None
    try:
        return call(*arguments)
    except api.NVMLError:
        return None


def _board(api: Any, index: int) -> Gpu | None:
    handle = _quietly(api, "nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return None
    return Gpu(index, _text(_quietly(api, "nvmlDeviceGetUUID", handle)), api, handle)


def _slices(board: Gpu) -> Iterator[Gpu]:
    """The MIG instances of a board that is cut into such."""
    mode = board.read("nvmlDeviceGetMigMode")
    if not mode or not mode[0]:
        return
    for i in range(board.read("nvmlDeviceGetMaxMigDeviceCount") or 0):
        instance = board.read("nvmlDeviceGetMigDeviceHandleByIndex", i)
        if instance is not None:
            yield Gpu(board.index, _text(_quietly(board.api, "nvmlDeviceGetUUID", instance)), board.api, board.handle, instance)


def _visible(boards: list[Gpu], wanted: str | None) -> list[Gpu]:
    """What CUDA makes of CUDA_VISIBLE_DEVICES: entries up to the first that names nothing, or names something again."""
    instances = [gpu for board in boards for gpu in _slices(board)]
    cut = {gpu.index for gpu in instances}
    whole = [next(gpu for gpu in instances if gpu.index == board.index) if board.index in cut else board for board in boards]
    if wanted is None:
        return whole
    found: list[Gpu] = []
    for entry in (part.strip() for part in wanted.split(",")):
        gpu = _named(entry, whole, instances)
        if gpu is None or gpu in found:
            break
        found.append(gpu)
    return found


def _named(entry: str, whole: list[Gpu], instances: list[Gpu]) -> Gpu | None:
    if entry.isdecimal():
        return whole[int(entry)] if int(entry) < len(whole) else None
    candidates = instances if entry.startswith("MIG-") else whole
    matches = [gpu for gpu in candidates if entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value) * factor


def _bus(address: str) -> str:
    """A PCI address without its domain, whose width differs between tools: "3b:00.0"."""
    return ":".join(address.lower().split(":")[-2:])
