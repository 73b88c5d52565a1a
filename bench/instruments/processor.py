"""The processor as Linux describes it: its name, instruction sets and caches, and what a container leaves of it."""

from __future__ import annotations

import functools
import math
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
SYS_CPU = Path("/sys/devices/system/cpu")
FEATURES = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "avx10_1", "asimd", "asimddp", "asimdhp", "bf16", "i8mm",
    "sve", "sve2", "svebf16", "svei8mm", "sme",
)  # fmt: skip
"""Instruction sets that kernels choose by, as /proc/cpuinfo calls them, x86 and Arm."""


def cores(cgroup: Path = CGROUP) -> int:
    """Logical processors that this process may use: its affinity, and no more than its container's share."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = _cpu_share(cgroup)
        if quota > 0:
            return max(1, min(allowed, math.ceil(quota / period)))
    return allowed


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """Main memory that this process may use: the machine's, and no more than its container's."""
    total = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return min(total, int((cgroup / name).read_text()))
    return total


def name(cpuinfo: Path = CPUINFO) -> str:
    """The processor's model name; its architecture where it has none."""
    return _cpuinfo(cpuinfo).get("model name") or platform.processor() or platform.machine()


def features(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The instruction sets of FEATURES that it has."""
    fields = _cpuinfo(cpuinfo)
    has = set((fields.get("flags") or fields.get("Features") or "").split())
    return tuple(feature for feature in FEATURES if feature in has)


def last_level_cache(root: Path = SYS_CPU, cpus: Iterable[int] | None = None) -> int | None:
    """Bytes of the highest cache level beside `cpus` (those of this process), each shared part counted once."""
    parts: dict[int, dict[str, int]] = {}
    for cpu in os.sched_getaffinity(0) if cpus is None else cpus:
        for folder in root.glob(f"cpu{cpu}/cache/index*"):
            try:
                level, kind, shared = (int((folder / "level").read_text()), _word(folder / "type"), _word(folder / "shared_cpu_list"))
                size = _bytes(_word(folder / "size"))
            except (OSError, ValueError):
                continue
            if kind != "Instruction":
                parts.setdefault(level, {})[shared] = size
    return sum(parts[max(parts)].values()) if parts else None


@functools.cache
def _cpuinfo(path: Path) -> dict[str, str]:
    """The fields of the first processor."""
    try:
        first = path.read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _cpu_share(cgroup: Path) -> tuple[int, int]:
    """(microseconds of processor time, per so many microseconds) of this container; the first is -1 without a limit."""
    if (cgroup / "cpu.max").is_file():
        quota, period = (cgroup / "cpu.max").read_text().split()
        return (-1 if quota == "max" else int(quota)), int(period)
    old = cgroup / "cpu"
    return int((old / "cpu.cfs_quota_us").read_text()), int((old / "cpu.cfs_period_us").read_text())


def _word(path: Path) -> str:
    return path.read_text().strip()


def _bytes(text: str) -> int:
    """ "32768K" in bytes."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text and text[-1] in units else int(text)
