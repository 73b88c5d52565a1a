"""What NVIDIA's multiprocessors hold and do in a clock, by compute capability: published figures, of cards that need not be there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one multiprocessor has room for.

    Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability" and "Features and Technical Specifications";
    PTX ISA, "Tensor Memory".
    """

    shared_bytes: int
    shared_bytes_program: int
    """For one program, when it asks for it."""
    warps: int
    programs: int
    registers: int = 65536
    partitions: int = 4
    """Each has as many of its registers, and of its warps."""
    register_unit: int = 256
    """Registers of a warp are given out in so many."""
    shared_reserved: int = 1024
    """Kept back of every program."""
    shared_unit: int = 128
    threads_program: int = 1024
    tensor_columns: int = 0
    """Of Blackwell's tensor memory."""


LIMITS = {
    (8, 0): Limits(164 << 10, 163 << 10, 64, 32),
    (8, 6): Limits(100 << 10, 99 << 10, 48, 16),
    (8, 9): Limits(100 << 10, 99 << 10, 48, 24),
    (9, 0): Limits(228 << 10, 227 << 10, 64, 32),
    (10, 0): Limits(228 << 10, 227 << 10, 64, 32, tensor_columns=512),
    (12, 0): Limits(100 << 10, 99 << 10, 48, 24),
}


@dataclass(frozen=True)
class Rates:
    """What one multiprocessor does in a clock.

    Sources: CUDA C++ Programming Guide, "Arithmetic Instructions" (throughput table) and "Shared Memory"; tensor cores: the architecture
    white papers of A100, GA102, AD102, H100, and of B200 the dense rate over multiprocessors and boost clock.
    """

    tensor: int
    """FLOP of dense 16-bit products that are summed in float32; half of it in TF32, twice in 8 bit."""
    fp32: int
    """Additions, multiplications or both at once (FMA): results."""
    tensor_opcode: str
    """The opcode that its products are known by."""
    device_bytes: float
    """Of the device's memory, for one of all multiprocessors: bandwidth / multiprocessors / boost clock."""
    integer: int = 64
    """Comparisons, minima, selections, logic, sums of integers, conversions: results."""
    special: int = 16
    """Exponentials, reciprocals, tanh: results."""
    memory_bytes: int = 128
    """Between registers or tensor cores and shared memory or the L1 cache, which are one."""
    issue: int = 4
    """Instructions of warps."""


RATES = {
    # A100 80 GB: 2039 GB/s, 108, 1.41 GHz
    (8, 0): Rates(2048, 64, "HMMA", 13.4),
    # tensor cores: those of professional cards: GeForce does half of it when sums are in float32
    # RTX 3090: 936 GB/s, 82, 1.695 GHz; RTX 4090: 1008 GB/s, 128, 2.52 GHz
    (8, 6): Rates(1024, 128, "HMMA", 6.7),
    (8, 9): Rates(1024, 128, "HMMA", 3.1),
    # H200: 4800 GB/s, 132, 1.83 GHz; an H100 has 3350 GB/s
    (9, 0): Rates(4096, 128, "HGMMA", 19.9),
    # B200: 8000 GB/s, 148, 1.965 GHz
    (10, 0): Rates(8192, 128, "UTCHMMA", 27.5),
    # RTX 5090: 1792 GB/s, 170, 2.41 GHz
    (12, 0): Rates(1024, 128, "HMMA", 4.4),
}


def capability(arch: str) -> tuple[int, int] | None:
    """(9, 0) of "sm_90", "sm90", "90" or "9.0"; None for what is not known here."""
    digits = arch.strip().lower().removeprefix("sm").removeprefix("_").replace(".", "")
    if not digits.isdecimal() or len(digits) < 2:
        return None
    found = (int(digits[:-1]), int(digits[-1]))
    return found if found in LIMITS else None


def arch(capability: tuple[int, int]) -> str:
    """ "sm_90" of (9, 0)."""
    return f"sm_{capability[0]}{capability[1]}"
