"""The composed Triton kernels without a GPU, run by Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
LLAMA = {"norm_first": True, "norm": "rmsnorm", "activation": "silu", "gated": True, "bias": False, "rope_theta": 1e4, "mask": "causal"}
for fields in (
    {"mask": "causal"},
    {"padding": True, "batch": 2, "activation": "gelu"},
    {**LLAMA, "batch": 2, "kv_heads": 1},
    {**LLAMA, "head_dim": 48, "rope_scaling": "linear:4"},
    {"rope_theta": 100.0, "mask": "boolean", "batch": 2},
):
    for dtype in ("float32", "float16"):
        problem = Layer(seq_len=33, dim=64, heads=2, hidden_dim=72, dtype=dtype, **fields)
        weights = problem.weights(3)
        setup = Setup(torch.device("cpu"), weights)
        truth = Truth(problem, problem.inputs(1), weights)
        errors = verify(fused.build(problem, setup)(truth.inputs), fused, setup, truth).errors
        found[problem.label] = [errors.max_ratio, errors.rms_ratio]
print(json.dumps(found))
"""


IN_8_BIT = """
import json, torch
from types import SimpleNamespace
from dataclasses import replace
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels.layer.int8 import Matrices, claim_on_device, int8, on_device
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Setup

h100 = SimpleNamespace(major=9, minor=0, multi_processor_count=132, L2_cache_size=50 * 2**20)
torch.cuda.get_device_properties = lambda device=None: h100
LLAMA = {"norm_first": True, "norm": "rmsnorm", "activation": "silu", "gated": True, "bias": False, "rope_theta": 1e4, "mask": "causal"}
found = {}

def claim(problem, setup, inputs):
    return claim_on_device(problem, Matrices.of(setup.weights).dequantized(setup.weights), inputs)

here = replace(int8, claim=claim, build_run=lambda problem, setup: on_device(problem, setup, Matrices.of(setup.weights)))
for fields in ({"padding": True, "batch": 2, "activation": "gelu"}, {**LLAMA, "batch": 2, "kv_heads": 1}):
    for dtype in ("float32", "float16"):
        problem = Layer(seq_len=33, dim=64, heads=2, hidden_dim=72, dtype=dtype, **fields)
        weights = problem.weights(3)
        setup = Setup(torch.device("cpu"), weights)
        truth = Truth(problem, problem.inputs(1), weights)
        verified = verify(here.build(problem, setup)(truth.inputs), here, setup, truth)
        found[problem.label] = [verified.errors.max_ratio, verified.distance.relative_rms]
print(json.dumps(found))
"""


def interpreted(text, folder):
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, str(Path(__file__).parents[1] / "interpreted.py"), str(script)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_is_right_in_the_interpreter(tmp_path):
    found = interpreted(INTERPRETED, tmp_path)
    assert len(found) == 10
    assert max(ratio for ratio, _ in found.values()) < 2
    assert max(ratio for _, ratio in found.values()) < 1.5


def test_in_8_bit_it_computes_its_claim_in_the_interpreter(tmp_path):
    found = interpreted(IN_8_BIT, tmp_path)
    assert len(found) == 4
    for _, from_exact in found.values():
        assert 1e-3 < from_exact < 0.05


def test_what_turns_queries_and_keys_compiles_for_every_card(sound):
    from kerneldyno.kernels.layer import fused

    for capability in ((8, 0), (9, 0), (10, 0)):
        assert len(sound(fused.device_code(capability))) == 12
