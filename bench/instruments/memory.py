"""Peak bytes allocated on the device during one call, above what was alive before it, the output included."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

MEMRAY = "memray (every native allocation)"
TORCH = "torch CUDA allocator"
FOREIGN = "torch CUDA allocator + growth of device memory in use"


@dataclass(frozen=True)
class Peak:
    """What one call needed at most."""

    bytes: int | None
    """None: not measured."""
    source: str
    """Which counter it came from, or why there is none."""


def peak_of(call: Callable[[], object], device: torch.device, *, foreign: bool = False) -> Peak:
    """Make one call and return its peak. One-time caches do not belong to it: the caller has made a call before.

    On CUDA, `foreign` says that a runtime allocates where torch's allocator does not see it. Its part is the growth of
    device memory in use over the call (cudaMemGetInfo, less what torch reserved for itself): the worker must be alone on
    the device, and the runtime's arena must not have grown by an earlier call, since it keeps what it once took.
    """
    if device.type == "cuda":
        return _cuda_peak(call, device, foreign=foreign)
    return _native_peak(call)


def _native_peak(call: Callable[[], object]) -> Peak:
    """Every malloc, mmap and the like of every thread, seen by memray: exact, whatever the allocator kept warm."""
    try:
        import memray
    except ImportError:
        return Peak(None, "not measured: memray is not installed (pip install 'kerneldyno[run]'; it exists for Linux and macOS)")
    with tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder:
        trace = Path(folder) / "trace"
        with memray.Tracker(trace, native_traces=False):
            output = call()
        del output
        with memray.FileReader(trace) as reader:
            peak = int(reader.metadata.peak_memory)
    return Peak(peak, MEMRAY)


def _cuda_peak(call: Callable[[], object], device: torch.device, *, foreign: bool) -> Peak:
    import torch

    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    base = torch.cuda.memory_allocated(device)
    outside = _outside_torch(device) if foreign else 0
    torch.cuda.reset_peak_memory_stats(device)
    output = call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - base
    if foreign:
        peak += max(_outside_torch(device) - outside, 0)
    del output
    return Peak(peak, FOREIGN if foreign else TORCH)


def _outside_torch(device: torch.device) -> int:
    """Bytes of device memory in use that torch's allocator has not reserved."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)
