"""The few things that counting memory asks of CUDA, through torch."""

from __future__ import annotations

import gc
from typing import Protocol

import torch


class DeviceMemory(Protocol):
    """The memory of one device; tests give a simulated one."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""

    def settle(self) -> None:
        """Collect garbage, wait, and give back what is cached but not used."""

    def allocated(self) -> int:
        """Bytes that torch's allocator has handed out."""

    def reset_peak(self) -> None:
        """Forget the peak so far."""

    def peak(self) -> int:
        """Most bytes that torch's allocator has handed out since then."""

    def outside(self) -> int:
        """Bytes of device memory in use that torch's allocator has not reserved: other allocators' and other processes'."""


class TorchMemory:
    """The real one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def settle(self) -> None:
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()

    def allocated(self) -> int:
        return torch.cuda.memory_allocated(self._device)

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)

    def outside(self) -> int:
        free, total = torch.cuda.mem_get_info(self._device)
        return total - free - torch.cuda.memory_reserved(self._device)
