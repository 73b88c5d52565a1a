"""A driver that is not there: what pynvml would say of the boards that a test describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest


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
    """Looks like the module pynvml, as far as `nvml` uses it: a test holds that it has these functions with these arguments."""

    NVMLError = pynvml.NVMLError

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

    def nvmlDeviceGetFieldValues(self, handle: Board, ids: list[int]) -> Any:
        values = (pynvml.c_nvmlFieldValue_t * len(ids))()
        for value, number in zip(values, ids, strict=True):
            supported = number == pynvml.NVML_FI_DEV_POWER_INSTANT and handle.instant_mw is not None
            value.fieldId, value.valueType = number, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
            value.nvmlReturn = pynvml.NVML_SUCCESS if supported else pynvml.NVML_ERROR_NOT_SUPPORTED
            value.value.uiVal = handle.instant_mw or 0
        return values

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
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle.instances[index]

    def _supported(self, value: int | None) -> int:
        if value is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value


@pytest.fixture
def driver() -> type[FakeDriver]:
    return FakeDriver


@pytest.fixture
def board() -> type[Board]:
    return Board
