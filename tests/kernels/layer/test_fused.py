"""The composed Triton kernels without a GPU, run by Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

INTERPRETED = """
import json, torch
from types import SimpleNamespace
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels.layer.fused import fused
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Setup

h100 = SimpleNamespace(major=9, minor=0, multi_processor_count=132, L2_cache_size=50 * 2**20)
torch.cuda.get_device_properties = lambda device=None: h100  # attention/fused cuts its work for it
found = {}
for fields in ({}, {"mask": "causal"}, {"padding": True, "batch": 2}):
    for dtype in ("float32", "float16"):
        problem = Layer(seq_len=33, dim=64, heads=2, hidden_dim=72, dtype=dtype, **fields)
        weights = problem.weights(3)
        setup = Setup(torch.device("cpu"), weights)
        truth = Truth(problem, problem.inputs(1), weights)
        errors = verify(fused.build(problem, setup)(truth.inputs), fused, setup, truth).errors
        found[problem.label] = [errors.max_ratio, errors.rms_ratio]
print(json.dumps(found))
"""


def test_is_right_in_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 6
    assert max(ratio for ratio, _ in found.values()) < 2
    assert max(ratio for _, ratio in found.values()) < 1.5
