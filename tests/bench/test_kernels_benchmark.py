"""Benchmarks of the shipped kernels through the fixture that other projects use, at one tiny problem per operator.

The test suite measures a few of them. All, in minutes: `nox -s tests -- tests/bench/test_kernels_benchmark.py --benchmark-only`;
with `-m "not slow"` without those that take long to build.
"""

from __future__ import annotations

import pytest

from kerneldyno.kernels import registry

PROBLEMS = {
    "attention": {"batch": 1, "heads": 2, "q_len": 64, "head_dim": 32, "causal": True},
    "feedforward": {"batch": 1, "seq_len": 32, "dim": 64, "hidden_dim": 128},
    "layer": {"batch": 1, "seq_len": 32, "dim": 64, "heads": 2, "hidden_dim": 128},
}
FEW = ("attention/sdpa", "feedforward/int8", "layer/sdpa")
SLOW_TO_BUILD = ("compiled", "flex", "onnxrt")


def pytest_generate_tests(metafunc):
    if "kernel" in metafunc.fixturenames:
        kernels = registry.load(declarations_only=True).values()
        chosen = [one for one in kernels if one.name in FEW or metafunc.config.getoption("benchmark_only", False)]
        slow = {one.name: [pytest.mark.slow] if one.family in SLOW_TO_BUILD else [] for one in chosen}
        metafunc.parametrize("kernel", [pytest.param(name, marks=marks) for name, marks in slow.items()])


def test_kernel(kernel_benchmark, kernel):
    measurement = kernel_benchmark(kernel, PROBLEMS[kernel.partition("/")[0]], protocol="smoke")
    assert measurement.errors.max_ratio >= 0
    if measurement.samples_s:  # none where benchmarks are disabled
        assert len(measurement.samples_s) >= 10
        assert not measurement.leak_bytes
        assert measurement.peak_bytes is None or measurement.peak_bytes > 0
        assert measurement.peak_source


def test_the_few_exist():
    assert set(FEW) <= registry.load(declarations_only=True).keys()
