"""Rates of an invented machine, and sanity of the real one's."""

from __future__ import annotations

import time

import pytest
import torch

from kerneldyno.bench.instruments import ceiling
from kerneldyno.bench.instruments.clock import FakeClock

CPU = torch.device("cpu")


class Machine(FakeClock):
    """Multiplies at a rate per size, and copies at another: only the clock is invented."""

    def __init__(self, rates: dict[int, float], copied_per_s: float = 1e9) -> None:
        super().__init__()
        self.rates, self.copied_per_s = rates, copied_per_s
        self.sizes: list[int] = []

    def time(self, run, inputs, *, cold=True):
        (argument,) = inputs
        run(argument)
        if argument.dim() == 2:
            self.sizes.append(argument.shape[0])
            seconds = 2 * argument.shape[0] ** 3 / self.rates[argument.shape[0]]
        else:
            seconds = 2 * argument.nbytes / self.copied_per_s
        return super().time(self.advance, [seconds], cold=cold)


def test_the_best_size_counts() -> None:
    machine = Machine({8: 1e6, 16: 4e6, 32: 2e6})
    assert ceiling.matmul_rate(CPU, torch.float32, machine, (8, 16, 32)) == pytest.approx(4e6)
    assert set(machine.sizes) == {8, 16, 32}


def test_a_size_that_would_take_too_long_is_left_out() -> None:
    machine = Machine({8: 1e4, 16: 1e4, 32: 1e4})  # 0.1 s, 0.8 s, 6.6 s
    assert ceiling.matmul_rate(CPU, torch.float32, machine, (8, 16, 32)) == pytest.approx(1e4)
    assert set(machine.sizes) == {8}


def test_a_size_stays_within_its_time() -> None:
    machine = Machine({16: 2 * 16**3 / 0.3})
    ceiling.matmul_rate(CPU, torch.float32, machine, (16,))
    assert machine.now() < 4 * ceiling.SIZE_CAP_S


def test_a_dtype_that_cannot_be_multiplied_has_no_rate() -> None:
    assert ceiling.matmul_rate(CPU, torch.bool, FakeClock(), (8,)) is None


def test_the_copy_counts_bytes_both_ways(monkeypatch) -> None:
    monkeypatch.setattr(ceiling, "FEWEST_COPY_BYTES", 2**20)
    assert ceiling.copy_rate(CPU, None, Machine({}, 5e9)) == pytest.approx(5e9)


def test_the_real_machine_within_its_seconds() -> None:
    started = time.perf_counter()
    found = ceiling.measure("cpu", ["float32"])
    assert time.perf_counter() - started < 20  # 2 s on two quiet cores
    assert found.device == "cpu"
    assert found.matmul_flops_per_s.keys() == {"float32"}
    assert 1e8 < found.matmul_flops_per_s["float32"] < 1e14
    assert 1e8 < found.copy_bytes_per_s < 1e13
    assert found.limit_s(10**9, 1, "float32") == pytest.approx(1e9 / found.matmul_flops_per_s["float32"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_real_gpu() -> None:
    found = ceiling.measure("cuda:0", ["float32", "bfloat16"])
    assert found.matmul_flops_per_s["bfloat16"] > found.matmul_flops_per_s["float32"] > 1e11
    assert 1e10 < found.copy_bytes_per_s < 1e14
    assert found.last_level_cache_bytes > 2**20
