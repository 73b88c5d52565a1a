"""What this machine can do, measured in seconds: matrix-product rate by dtype and copy rate. Datasheets are not asked."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import psutil
import torch

from ..records import Ceilings
from . import processor
from .clock import Clock, CpuClock
from .cudaclock import CudaClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CPU_SIZES = (512, 1024, 2048)
CUDA_SIZES = (2048, 4096, 8192)
SIZE_CAP_S = 0.35
"""About how long one size of one dtype may take; a size that would take longer for a single call is left out."""
MOST_REPEATS = 15
COPY_CAP_S = 0.25
COPY_ATTEMPTS = 3
CACHES_PER_BUFFER = 4
FEWEST_COPY_BYTES = 64 * 2**20


def measure(device: torch.device | str, dtypes: Sequence[str], *, clock: Clock | None = None) -> Ceilings:
    """Rates of `device` with torch's current number of threads; a dtype that it cannot multiply is left out.

    A few seconds on a CPU with two cores, less on a GPU.
    """
    place = torch.device(device)
    clock = clock or (CudaClock(place) if place.type == "cuda" else CpuClock())
    rates = {dtype: matmul_rate(place, getattr(torch, dtype), clock) for dtype in dtypes}
    cache = cache_bytes(place)
    return Ceilings(
        matmul_flops_per_s={dtype: rate for dtype, rate in rates.items() if rate is not None},
        copy_bytes_per_s=copy_rate(place, cache, clock),
        last_level_cache_bytes=cache,
        device=str(device),
    )


def matmul_rate(device: torch.device, dtype: torch.dtype, clock: Clock, sizes: Sequence[int] | None = None) -> float | None:
    """Flop per second of the best of some square products of N(0, 1) matrices: one size alone moved by a third.

    None where torch cannot multiply this dtype here.
    """
    best, expected_s = None, 0.0
    for size in sizes or (CUDA_SIZES if device.type == "cuda" else CPU_SIZES):
        if expected_s > SIZE_CAP_S:
            break
        try:
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            call_s = _median_s(partial(torch.mm, a), b, clock, SIZE_CAP_S)
        except (RuntimeError, TypeError, NotImplementedError):
            break  # no such product here, or no memory for it
        best = max(best or 0.0, 2 * size**3 / call_s)
        expected_s = 8 * call_s  # the next size has twice the side
    return best


def copy_rate(device: torch.device, cache: int | None, clock: Clock) -> float:
    """Bytes read plus bytes written per second, of a buffer that no cache holds; the best of some medians."""
    count = _copy_bytes(device, cache) // 4
    source, target = torch.randn(count, device=device), torch.empty(count, device=device)
    call_s = min(_median_s(target.copy_, source, clock, COPY_CAP_S) for _ in range(COPY_ATTEMPTS))
    return 2 * 4 * count / call_s


def cache_bytes(device: torch.device) -> int | None:
    """Size of the last-level cache: of all its parts that this process can run beside, or the GPU's L2."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return processor.last_level_cache()


def _median_s(call: Callable[[torch.Tensor], object], argument: torch.Tensor, clock: Clock, cap_s: float) -> float:
    """Median seconds of `call(argument)`, of at least one and at most MOST_REPEATS, within about `cap_s` after a first one."""
    first_s = clock.time(call, [argument], cold=False).seconds
    if first_s > cap_s:
        return first_s
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < MOST_REPEATS and sum(taken) < cap_s):
        taken.append(clock.time(call, [argument], cold=False).seconds)
        if len(taken) * max(taken) > 2 * cap_s:
            break
    return median(taken)


def _copy_bytes(device: torch.device, cache: int | None) -> int:
    """Several times the cache; not more than an eighth of the memory that is free."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    wanted = max(CACHES_PER_BUFFER * (cache or 0), FEWEST_COPY_BYTES)
    return min(wanted, free // 8) // 4096 * 4096
