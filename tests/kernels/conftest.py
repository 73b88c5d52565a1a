"""How a kernel with weights is judged: the gate of the harness, on the machine's CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from kerneldyno.bench.codegen import judge, pool
from kerneldyno.bench.codegen.facts import Facts
from kerneldyno.bench.gate.conduct import behaves
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels._code import Configuration
from kerneldyno.kernels.registry import Setup


@pytest.fixture
def verified():
    """(kernel, problem) -> what the harness's check found; raises WrongOutput when the kernel is wrong."""

    def judge(kernel, problem, seed=0):
        weights = problem.weights(seed + 3)
        setup = Setup(torch.device("cpu"), weights, problem.inputs(seed + 2), seed)
        truth = Truth(problem, problem.inputs(seed + 1), weights)
        output = behaves(kernel.build(problem, setup), truth.inputs, problem.inputs(seed + 4), setup.device).first
        return verify(output, kernel, setup, truth)

    return judge


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[Configuration]], list[tuple[Configuration, Facts]]]:
    """(configurations) -> each with what its binary holds; asserts that all compile and may be offered.

    Triton's cache is the test's own, unless the environment names one, to be shared with `kerneldyno codegen`.
    """
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", os.environ.get("TRITON_CACHE_DIR", str(tmp_path)))
    jobs = 1 if "PYTEST_XDIST_WORKER" in os.environ else None  # the other cores have tests of their own

    def compile_and_judge(configurations: Iterable[Configuration]) -> list[tuple[Configuration, Facts]]:
        found = list(pool.compile_all(list(configurations), jobs=jobs, timeout_s=600))
        told = [(done.configuration, judge.faults(done.configuration, done.facts) if done.facts else [done.reason]) for done in found]
        assert [(str(one), faults) for one, faults in told if faults] == []
        return [(done.configuration, done.facts) for done in found if done.facts]

    return compile_and_judge
