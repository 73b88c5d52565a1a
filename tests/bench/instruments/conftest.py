"""A driver that is not there: what pynvml would say of the boards that a test describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest


class DriverError(Exception):
    """As pynvml.NVMLError."""


@dataclass
class Board:
    """One GPU; a reading that is None is "not supported"."""

    uuid: str
    name: str = "NVIDIA H100"
    memory_bytes: int = 80 * 2**30
    bus: str = "00000000:3B:00.0"
    capability: tuple[int, int] = (9, 0)
    instant_mw: int | None = 300_000
    average_mw: int | None = 250_000
    energy_mj: int | None = 1_000
    events: int = 0
    instances: list[str] = field(default_factory=list)


class FakeDriver:
    """Looks like the module pynvml, as far as `nvml` uses it."""

    NVMLError = DriverError

    def __init__(self, *boards: Board) -> None:
        self.boards = boards

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        return self.boards[index]

    def nvmlDeviceGetUUID(self, handle: Board | str) -> bytes | str:
        return handle if isinstance(handle, str) else handle.uuid.encode()

    def nvmlDeviceGetName(self, handle: Board | str) -> str:
        return "NVIDIA H100 MIG 1g.10gb" if isinstance(handle, str) else handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: Board | str) -> Any:
        total = 10 * 2**30 if isinstance(handle, str) else handle.memory_bytes
        return SimpleNamespace(total=total, used=2**20)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Board) -> tuple[int, int]:
        return handle.capability

    def nvmlDeviceGetPciInfo(self, handle: Board) -> Any:
        return SimpleNamespace(busId=handle.bus.encode())

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.65.06"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Board) -> int:
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, handle: Board, clock: int) -> int:
        return 1980

    def nvmlDeviceGetClockInfo(self, handle: Board, clock: int) -> int:
        return 1755

    def nvmlDeviceGetTemperature(self, handle: Board, sensor: int) -> int:
        return 41

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Board) -> int:
        return handle.events

    def nvmlDeviceGetFieldValues(self, handle: Board, ids: list[int]) -> list[Any]:
        assert ids == [186]
        supported = handle.instant_mw is not None
        return [SimpleNamespace(nvmlReturn=0 if supported else 3, value=SimpleNamespace(uiVal=handle.instant_mw or 0))]

    def nvmlDeviceGetPowerUsage(self, handle: Board) -> int:
        return self._supported(handle.average_mw)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Board) -> int:
        return self._supported(handle.energy_mj)

    def nvmlDeviceGetMigMode(self, handle: Board) -> list[int]:
        return [int(bool(handle.instances))] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Board) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Board, index: int) -> str:
        if index >= len(handle.instances):
            raise DriverError("not found")
        return handle.instances[index]

    def _supported(self, value: int | None) -> int:
        if value is None:
            raise DriverError("not supported")
        return value


@pytest.fixture
def driver() -> type[FakeDriver]:
    return FakeDriver


@pytest.fixture
def board() -> type[Board]:
    return Board
