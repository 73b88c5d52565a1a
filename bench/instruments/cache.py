"""Emptying the processor's caches, so that a call on the CPU finds nothing of its own there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

from . import processor

if TYPE_CHECKING:
    import torch

MULTIPLE = 2
"""The sweep reads so many times what the last-level cache holds."""
ASSUMED_BYTES = 32 * 2**20
"""Size of the last-level cache where the system does not tell."""
MOST_OF_FREE = 0.25
"""The sweep takes no more than this share of the memory that is free."""
SETTLE_S = 5e-4
"""The threads that swept spin about so long before they sleep: only then are they out of the next call's way."""


class CpuCache:
    """Reads a buffer larger than the last-level cache with all of torch's threads, so that private caches are swept too.

    It reads and does not write: on the machine that this was tried on, a small read after it took five times as long as
    with a warm cache, after a sweep that writes only three times, and what was written would have had to be written back
    during the call that is timed. The buffer is allocated at the first sweep.
    """

    def __init__(
        self,
        cache_bytes: Callable[[], int | None] = processor.last_level_cache,
        free_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
    ) -> None:
        self._cache_bytes = cache_bytes
        self._free_bytes = free_bytes
        self._buffer: torch.Tensor | None = None

    @property
    def sweep_bytes(self) -> int:
        """Bytes that one sweep reads; less than MULTIPLE times the cache where memory is short."""
        if self._buffer is not None:
            return self._buffer.nbytes
        return min(MULTIPLE * (self._cache_bytes() or ASSUMED_BYTES), int(MOST_OF_FREE * self._free_bytes()))

    def sweep(self) -> None:
        """Push everything else out of the caches, and wait until the threads that did it are quiet."""
        import torch

        if self._buffer is None:
            # ones: untouched pages would all be the same page of zeros, which fits any cache
            self._buffer = torch.ones(max(self.sweep_bytes // 4, 1), dtype=torch.float32)
        self._buffer.sum()
        quiet_at = time.perf_counter() + SETTLE_S
        while time.perf_counter() < quiet_at:
            pass
