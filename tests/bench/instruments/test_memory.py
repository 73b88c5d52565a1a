"""Peak bytes of calls whose need is known."""

from __future__ import annotations

import builtins
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kerneldyno.bench.instruments.memory import FOREIGN, MEMRAY, TORCH, peak_of

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
    a = torch.randn(1024, 1024)
    torch.softmax(a, -1)
    peak = peak_of(lambda: torch.softmax(a, -1) + 1.0, CPU)
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
        taken = []
        for _ in range(200):
            started = time.perf_counter()
            torch.softmax(a, -1)
            taken.append(time.perf_counter() - started)
        return min(taken)

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
    peak = peak_of(lambda: block(1), CPU)
    assert peak.bytes is None
    assert "memray is not installed" in peak.source


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
    assert peak_of(call, device) == type(peak_of(call, device))(mebibytes * MIB, TORCH)
    foreign = peak_of(call, device, foreign=True)
    assert foreign.source == FOREIGN
    assert foreign.bytes == mebibytes * MIB  # torch's own allocations are not counted twice
