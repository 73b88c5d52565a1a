"""How a kernel with weights is judged: the gate of the harness, on the machine's CPU."""

from __future__ import annotations

import pytest
import torch

from kerneldyno.bench.gate.conduct import behaves
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
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
