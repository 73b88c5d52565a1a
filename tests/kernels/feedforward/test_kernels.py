from __future__ import annotations

import shutil

import pytest
import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Device, Setup

CPU = Device("cpu")
GPU = Device("cuda", capability=(9, 0))
KERNELS = {name: kernel for name, kernel in registry.load().items() if kernel.operator == "feedforward"}
QUICK = [kernel for kernel in KERNELS.values() if "cpu" in kernel.devices and kernel.family != "compiled"]

VARIANTS = [
    {},
    {"activation": "gelu", "bias": False},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "silu", "norm": "none", "gated": True, "residual": True},
]
# one token; lengths around a tile; sizes that are no multiples of anything
SIZES = [(1, 1, 64, 256), (1, 127, 100, 203), (3, 43, 72, 1100)]


@pytest.mark.parametrize("kernel", QUICK, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda fields: "-".join(f"{k}={v}" for k, v in fields.items()) or "plain")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernels_are_right(kernel, variant, dtype, verified):
    sizes = SIZES if dtype == "float32" else SIZES[1:2]
    took = 0
    for batch, seq_len, dim, hidden_dim in sizes:
        problem = FeedForward(batch=batch, seq_len=seq_len, dim=dim, hidden_dim=hidden_dim, dtype=dtype, **variant)
        if kernel.why_not(problem, CPU) is None:
            verified(kernel, problem)
            took += 1
    nothing_to_fuse = kernel.name == "feedforward/onnxrt_fused" and variant.get("activation") != "gelu_tanh"
    assert took == len(sizes) or nothing_to_fuse or (kernel.family == "onnxrt" and dtype == "bfloat16")


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
def test_compiled_is_right(verified):
    """One variant, with the most in it: each takes seconds to compile."""
    verified(KERNELS["feedforward/compiled"], FeedForward(seq_len=127, dim=100, hidden_dim=203, dtype="bfloat16", **VARIANTS[3]))


@pytest.mark.parametrize("kernel", QUICK, ids=lambda kernel: kernel.name)
def test_strided_inputs(kernel):
    problem = FeedForward(batch=2, seq_len=5, dim=16, hidden_dim=32, residual=True)
    setup = Setup(torch.device("cpu"), problem.weights(0), problem.inputs(1))
    run = kernel.build(problem, setup)
    inputs = problem.inputs(2)
    x = inputs.x.transpose(0, 1).contiguous().transpose(0, 1)
    assert not x.is_contiguous()
    torch.testing.assert_close(run(inputs.replace(x=x)), run(inputs), rtol=1e-5, atol=1e-5)
    same = inputs.x[:1].expand(2, -1, -1)
    torch.testing.assert_close(run(inputs.replace(x=same)), run(inputs.replace(x=same.contiguous())), rtol=1e-5, atol=1e-5)


def test_compiled_is_refused_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    problem = FeedForward(seq_len=4)
    assert "C++ compiler" in KERNELS["feedforward/compiled"].why_not(problem, CPU)
    assert KERNELS["feedforward/compiled"].why_not(problem, GPU) is None


@pytest.mark.parametrize(
    ("name", "problem", "device", "words"),
    [
        ("onnxrt", FeedForward(seq_len=4, dtype="bfloat16"), CPU, "no bfloat16"),
        ("int8_mm", FeedForward(seq_len=4, dim=100), GPU, "multiples of 8, not dim 100"),
        ("int8", FeedForward(seq_len=4, hidden_dim=40000), GPU, "rows of up to 32768 numbers on cuda, not 40000"),
        ("int8", FeedForward(seq_len=4), Device("cuda", capability=(7, 5)), "8.0 and newer on cuda, not 7.5"),
        ("fused", FeedForward(seq_len=4), CPU, "runs on cuda only"),
        ("fused", FeedForward(seq_len=4, dim=40000), GPU, "rows of up to 32768"),
        ("fused", FeedForward(seq_len=4), Device("cuda", capability=(7, 5)), "8.0 and newer, not 7.5"),
    ],
)
def test_refusals_are_sentences(name, problem, device, words):
    assert words in KERNELS[f"feedforward/{name}"].why_not(problem, device)


def test_every_feature_is_accepted_by_someone_exact_on_a_cpu():
    for variant in VARIANTS:
        problem = FeedForward(seq_len=4, **variant)
        assert any(not kernel.approximate and kernel.why_not(problem, CPU) is None for kernel in KERNELS.values())
