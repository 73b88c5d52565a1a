"""Peaks and growth of calls whose need is known."""

from __future__ import annotations

import builtins
import ctypes
import mmap
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from kerneldyno.bench.instruments.memory import (
    FOREIGN,
    MEMRAY,
    NO_MEMRAY,
    TORCH,
    Count,
    Peak,
    count,
    device_growth,
    device_peak,
    growth_of,
    peak_of,
    steady_growth,
)

MIB = 2**20
SLACK = 64 * 1024
CPU = torch.device("cpu")
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def block(mebibytes: int, device: str = "cpu") -> torch.Tensor:
    return torch.empty(mebibytes * MIB, dtype=torch.uint8, device=device)


def one_after_the_other(device: str = "cpu") -> None:
    for _ in range(5):
        block(8, device)


def grown(device: str = "cpu") -> torch.Tensor:
    """16 MiB alive, 24 MiB on top for a moment, 4 MiB at the end."""
    base = block(16, device)
    block(24, device)
    del base
    return block(4, device)


KNOWN = [
    (block, (32,), 32),
    (lambda: (block(32), block(16)), (), 48),
    (one_after_the_other, (), 8),
    (grown, (), 40),
    (lambda: None, (), 0),
    (lambda: np.ones(12 * MIB, dtype=np.uint8), (), 12),
    (lambda: bytearray(6 * MIB), (), 6),
]


@pytest.mark.parametrize(("call", "arguments", "mebibytes"), KNOWN)
def test_known_answers_on_the_cpu(call, arguments, mebibytes) -> None:
    call(*arguments)
    peak = peak_of(lambda: call(*arguments), CPU)
    assert peak.source == MEMRAY
    assert mebibytes * MIB <= peak.bytes <= mebibytes * MIB + SLACK


def test_what_was_alive_before_does_not_count_and_frees_of_it_do_not_subtract() -> None:
    held = [block(64)]

    def call() -> torch.Tensor:
        held.clear()
        return block(8)

    peak = peak_of(call, CPU)
    assert 8 * MIB <= peak.bytes <= 8 * MIB + SLACK


def test_work_of_torchs_threads_is_seen() -> None:
    a, before = torch.randn(1024, 1024), torch.get_num_threads()
    torch.set_num_threads(2)
    torch.softmax(a, -1)
    peak = peak_of(lambda: torch.softmax(a, -1) + 1.0, CPU)
    torch.set_num_threads(before)
    assert 8 * MIB <= peak.bytes <= 8 * MIB + SLACK


def test_a_call_that_raises_leaves_the_counter_usable() -> None:
    def fail() -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        peak_of(fail, CPU)
    assert peak_of(lambda: block(2), CPU).bytes >= 2 * MIB


@pytest.mark.parametrize("counts", [12, pytest.param(120, marks=pytest.mark.slow)])
def test_counting_again_and_again_leaves_no_file_open_or_lying_and_nothing_slow(counts, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    a = torch.randn(256, 256)

    def fastest() -> float:
        """Processor time of one thread: what other processes do meanwhile does not count."""
        taken, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in range(200):
            started = time.thread_time()
            torch.softmax(a, -1)
            taken.append(time.thread_time() - started)
        torch.set_num_threads(threads)
        return min(taken)

    peak_of(lambda: block(1), CPU)  # what is opened once belongs to nobody
    before, open_before = fastest(), open_files()
    peaks = [peak_of(lambda: block(1), CPU).bytes for _ in range(counts)]
    assert all(MIB <= peak <= MIB + SLACK for peak in peaks)
    assert list(tmp_path.iterdir()) == []
    assert open_files() <= open_before
    assert fastest() < 3 * before  # a tracer left behind costs an order of magnitude


def test_without_memray_it_is_not_measured(monkeypatch) -> None:
    def missing(name: str, *rest):
        if name == "memray":
            raise ImportError(name)
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    assert "memray is not installed" in NO_MEMRAY
    assert peak_of(lambda: block(1), CPU) == Peak(None, NO_MEMRAY)
    assert growth_of(lambda: block(1), CPU) is None
    assert count(lambda: block(1), CPU) == Count(Peak(None, NO_MEMRAY), None)


def test_an_import_that_fails_in_the_call_is_the_calls_own_failure() -> None:
    def fail() -> None:
        raise ImportError("no such backend")

    for asked in (peak_of, growth_of, count):
        with pytest.raises(ImportError, match="no such backend"):
            asked(fail, CPU)


# ---------------------------------------------------------------- what stays


def cached() -> object:
    """The first call fills a cache."""
    cache: dict[str, torch.Tensor] = {}
    return lambda: cache.setdefault("key", block(3))


def ring(length: int | None) -> object:
    """The results of the last calls are kept."""
    kept: deque[torch.Tensor] = deque(maxlen=length)
    return lambda: kept.append(block(1))


def cyclic() -> None:
    cycle: list[object] = [block(1)]
    cycle.append(cycle)


def now_and_then(every: int) -> object:
    """A block is kept of every so many-th call."""
    kept: list[torch.Tensor] = []
    calls = iter(range(10**6))
    return lambda: kept.append(block(6)) if next(calls) % every == 0 else None


@pytest.mark.parametrize("quiet", [cached(), ring(1), ring(4), ring(7), cyclic, lambda: [[] for _ in range(1000)], lambda: None])
def test_what_is_cached_replaced_or_garbage_does_not_stay(quiet) -> None:
    quiet()
    assert growth_of(quiet, CPU) == 0
    assert count(quiet, CPU).growth_bytes == 0


@pytest.mark.parametrize("calls", [3, 7])
def test_what_stays_of_every_call_is_known_to_the_byte(calls) -> None:
    kept: list[object] = []
    assert growth_of(lambda: kept.append(mmap.mmap(-1, 3 * MIB)), CPU, calls) == 3 * MIB
    assert growth_of(ring(None), CPU, calls) == pytest.approx(MIB, rel=0.001)
    assert growth_of(lambda: kept.append(bytearray(999)), CPU, calls) == 1000


@pytest.mark.parametrize("every", [2, 3, 6])
def test_what_stays_now_and_then_is_spread_over_the_calls(every) -> None:
    assert growth_of(now_and_then(every), CPU) == pytest.approx(6 * MIB / every, rel=0.001)


def test_growth_is_that_of_the_window_which_grew_least() -> None:
    assert steady_growth([5, 5, 5, 5]) == 0
    assert steady_growth([0, 10, 20, 30]) == 10
    assert steady_growth([0, 10, 20, 20]) == 0
    assert steady_growth([0, 900, 903, 906, 909, 912, 915]) == 3
    assert steady_growth([100, 90, 80, 70]) == 0


def test_peak_and_growth_come_from_the_same_calls() -> None:
    assert count(lambda: block(5), CPU).peak.bytes == pytest.approx(5 * MIB, abs=SLACK)
    found = count(ring(None), CPU)
    assert found.peak.bytes == pytest.approx(MIB, abs=SLACK)
    assert found.growth_bytes == pytest.approx(MIB, rel=0.001)


def test_one_call_that_differs_does_not_decide_the_peak() -> None:
    sizes = iter([2, 30, *[2] * 1000])
    assert count(lambda: block(next(sizes)), CPU).peak.bytes == pytest.approx(2 * MIB, abs=SLACK)
    turns = iter([1, 4] * 1000)
    assert count(lambda: block(next(turns)), CPU).peak.bytes == pytest.approx(4 * MIB, abs=SLACK)


def test_slow_calls_are_made_a_few_times_only() -> None:
    calls: list[None] = []

    def slow() -> None:
        calls.append(None)
        time.sleep(0.06)

    assert count(slow, CPU).growth_bytes == 0
    assert len(calls) <= 4  # three traced, one to see the process rise


def test_looking_for_a_leak_does_not_itself_use_up_the_memory() -> None:
    kept: list[torch.Tensor] = []
    assert count(lambda: kept.append(block(256)), CPU).growth_bytes == pytest.approx(256 * MIB, rel=0.001)  # not touched
    assert len(kept) <= 7 + 1 + 1 + 7


def test_memory_that_memray_does_not_see_is_a_lower_bound_and_said_to_be_one() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def call() -> None:
        address = libc.malloc(24 * MIB)  # called through a pointer, past what memray patches
        ctypes.memset(address, 1, 24 * MIB)
        libc.free(address)

    found = count(call, CPU)
    assert found.peak.bytes == pytest.approx(24 * MIB, rel=0.05)
    assert "a lower bound" in found.peak.source
    assert found.growth_bytes is None


# ---------------------------------------------------------------- a device


class FakeDevice:
    """A device with torch's allocator and another one; what is freed outside is given back at once."""

    def __init__(self) -> None:
        self.inside = self.highest = self.beyond = self.settled = 0

    def take(self, inside: int = 0, beyond: int = 0) -> None:
        self.inside += inside
        self.beyond += beyond
        self.highest = max(self.highest, self.inside)

    def synchronize(self) -> None:
        pass

    def settle(self) -> None:
        self.settled += 1

    def allocated(self) -> int:
        return self.inside

    def reset_peak(self) -> None:
        self.highest = self.inside

    def peak(self) -> int:
        return self.highest

    def outside(self) -> int:
        return self.beyond


def test_a_device_peak_is_torchs_and_what_grew_beside_it() -> None:
    device = FakeDevice()
    device.take(inside=1000)

    def scratch() -> None:
        device.take(inside=70)
        device.take(inside=-70)

    assert device_peak(scratch, device, foreign=False) == Peak(70, TORCH)
    arena = iter([40, 0, 0])
    assert device_peak(lambda: device.take(beyond=next(arena)), device, foreign=True) == Peak(40, FOREIGN)
    late = iter([40, 0])
    assert device_peak(lambda: device.take(beyond=next(late)), device, foreign=False) == Peak(0, TORCH)  # loaded once
    assert device_peak(lambda: device.take(beyond=40), device, foreign=False) == Peak(40, FOREIGN)


def test_what_stays_on_a_device_is_seen_in_either_allocator() -> None:
    device = FakeDevice()
    assert device_growth(lambda: None, device, 6) == 0
    assert device_growth(lambda: device.take(inside=5), device, 6) == 5
    assert device_growth(lambda: device.take(beyond=2 * MIB), device, 6) == 2 * MIB
    neighbour = iter([0, 0, 9 * MIB, *[0] * 100])
    assert device_growth(lambda: device.take(beyond=next(neighbour)), device, 6) == 0  # another process, once


@pytest.mark.parametrize(
    ("call", "mebibytes"),
    [
        pytest.param(lambda: block(32, "cuda"), 32, marks=on_gpu),
        pytest.param(lambda: one_after_the_other("cuda"), 8, marks=on_gpu),
        pytest.param(lambda: grown("cuda"), 40, marks=on_gpu),
    ],
)
def test_known_answers_on_a_gpu(call, mebibytes) -> None:
    call()
    device = torch.device("cuda:0")
    assert peak_of(call, device) == Peak(mebibytes * MIB, TORCH)
    foreign = peak_of(call, device, foreign=True)
    assert foreign.source == FOREIGN
    assert foreign.bytes == mebibytes * MIB  # torch's own allocations are not counted twice


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_what_stays_on_a_gpu() -> None:
    kept: list[torch.Tensor] = []
    device = torch.device("cuda:0")
    assert growth_of(lambda: kept.append(block(2, "cuda")), device) == 2 * MIB
    assert growth_of(lambda: block(2, "cuda"), device) == 0
    assert count(lambda: grown("cuda"), device) == Count(Peak(40 * MIB, TORCH), 0)
