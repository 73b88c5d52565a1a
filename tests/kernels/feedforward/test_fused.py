"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled ahead of time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

INTERPRETED = """
import json, torch
from kerneldyno.bench.gate.conduct import behaves
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels.feedforward.fused import fused
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Setup

variants = [
    {},
    {"activation": "gelu", "bias": False},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "silu", "norm": "none", "gated": True, "residual": True},
]
sizes = [(1, 64, 256), (127, 52, 75), (129, 48, 80)]
found = {}
for fields in variants:
    for dtype in ("float32", "float16"):
        # (300, …) takes the largest tiles
        largest = [(300, 64, 64)] if fields.get("residual") else []
        for seq_len, dim, hidden_dim in sizes if dtype == "float32" else sizes[1:2] + largest:
            problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **fields)
            weights, inputs = problem.weights(3), problem.inputs(1)
            if seq_len == 129:  # rows further apart than they are long
                inputs = inputs.replace(x=torch.cat([inputs.x, inputs.x], dim=2)[..., :dim])
            setup = Setup(torch.device("cpu"), weights)
            truth = Truth(problem, inputs, weights)
            before = inputs.x.clone()
            output = fused.build(problem, setup)(inputs)
            assert torch.equal(inputs.x, before)
            errors = verify(output, fused, setup, truth).errors
            found[problem.label] = [errors.max_ratio, errors.rms_ratio]
print(json.dumps(found))
"""


def test_is_right_in_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 22
    # it keeps sums in float32 and rounds as often as the plain formula does: hardly worse, mostly better
    assert max(ratio for ratio, _ in found.values()) < 2
    assert max(ratio for _, ratio in found.values()) < 1.5


def compiled(tiles, dtype, capability, *, gated, aligned=True):
    """(compiled kernel, resource usage, instructions) for pointers and sizes as torch gives them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kerneldyno.kernels.feedforward import _fused_tiles, _fused_triton

    constants = dict(_fused_tiles.constants(tiles, 4096 if aligned else 100, "silu" if gated else "gelu"))
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    signature, values, hints = {}, {}, {}
    for i, name in enumerate(_fused_triton.linear_kernel.arg_names):
        if name in constants or (name in ("p_g", "p_bg") and not gated):
            signature[name], values[(i,)] = "constexpr", constants.get(name)
        else:
            signature[name] = f"*{dtype}" if name.startswith("p_") else "i32"
            if name.startswith("p_") or (aligned and name != "T"):
                hints[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(_fused_triton.linear_kernel, signature, values, hints)
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return kernel, dump(kernel.asm["cubin"], "-res-usage"), dump(kernel.asm["cubin"], "-sass")


def dump(cubin, what):
    import tempfile

    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        return subprocess.run([tool, what, file.name], capture_output=True, text=True, check=True).stdout


def offered(item_bytes, *, gated):
    from kerneldyno.kernels.feedforward import _fused_tiles

    return list(_fused_tiles.offered(item_bytes, gated=gated).values())


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing compiles inside an interpreter process")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
class TestAheadOfTime:
    def test_16_bit_tiles_use_tensor_cores_and_do_not_spill(self, capability, gated):
        for tiles in offered(2, gated=gated):
            kernel, usage, instructions = compiled(tiles, "bf16", capability, gated=gated)
            assert kernel.metadata.shared <= tiles.shared_bytes(2, gated=gated) <= 99 * 1024
            assert int(re.search(r"STACK:(\d+)", usage)[1]) == 0, f"{tiles} spills"
            # 64 rows and more go to a warp group's matrix instruction where there is one
            wanted = "HGMMA" if capability == 90 and tiles.bt >= 64 else "HMMA"
            assert re.search(rf"\b{wanted}\b", instructions), f"{tiles} uses no {wanted}"

    def test_float32_tiles_compile_without_tf32(self, capability, gated):
        kernel, usage, instructions = compiled(offered(4, gated=gated)[-1], "fp32", capability, gated=gated)
        assert kernel.metadata.shared <= 99 * 1024
        assert int(re.search(r"STACK:(\d+)", usage)[1]) == 0
        assert not re.search(r"\bHG?MMA\b", instructions)
        assert re.search(r"\bFFMA\b", instructions)

    def test_unaligned_rows_do_not_spill(self, capability, gated):
        from kerneldyno.kernels.feedforward import _fused_tiles

        _, usage, _ = compiled(_fused_tiles.UNALIGNED, "fp16", capability, gated=gated, aligned=False)
        assert int(re.search(r"STACK:(\d+)", usage)[1]) == 0


@pytest.mark.gpu
def test_is_right_on_a_gpu():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    from kerneldyno.bench.gate.conduct import behaves
    from kerneldyno.bench.gate.truth import Truth
    from kerneldyno.bench.gate.verify import verify
    from kerneldyno.kernels.feedforward.fused import fused
    from kerneldyno.kernels.feedforward.problem import FeedForward
    from kerneldyno.kernels.registry import Setup

    device = torch.device("cuda")
    for fields in ({}, {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False, "residual": True}):
        for dtype in ("float32", "bfloat16", "float16"):
            for seq_len, dim, hidden_dim in ((1, 64, 256), (127, 100, 203), (1000, 512, 2048)):
                problem = FeedForward(seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **fields)
                weights = problem.weights(3, device)
                setup = Setup(device, weights, problem.inputs(2, device))
                truth = Truth(problem, problem.inputs(1, device), weights)
                output = behaves(fused.build(problem, setup), truth.inputs, problem.inputs(4, device), setup.device).first
                verify(output, fused, setup, truth)
