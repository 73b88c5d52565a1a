from __future__ import annotations

import shutil

import pytest
import torch

from kerneldyno.bench.gate.errors import WrongOutput
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels import _int8, registry
from kerneldyno.kernels.feedforward.int8 import graph, int8, matrices
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
    assert took == len(sizes) or (kernel.family == "onnxrt" and dtype == "bfloat16")


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
        ("onnxrt", FeedForward(seq_len=4, dim=8192, hidden_dim=28672, gated=True), GPU, "at most 2 GiB"),
        ("int8", FeedForward(seq_len=4, dim=100), GPU, "multiples of 8, not dim 100"),
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


class TestInt8:
    def test_is_near_the_exact_result(self, verified):
        for variant in VARIANTS:
            found = verified(int8, FeedForward(seq_len=64, dim=128, hidden_dim=512, **variant))
            # the product of two branches has heavier tails, which one scale per tensor pays for
            coarser = _int8.LEVELS / _int8.weight_levels(torch.device("cpu"))
            assert 1e-3 < found.distance.relative_rms < (0.04 if variant.get("gated") else 0.02) * coarser
            assert found.distance.cosine > 0.999

    def test_a_wrong_scale_is_caught(self, monkeypatch, verified):
        monkeypatch.setattr(_int8, "LEVELS", 126)  # the claim follows: still right
        problem = FeedForward(seq_len=33, dim=64, hidden_dim=96)
        verified(int8, problem)
        weights = problem.weights(3)
        setup = Setup(torch.device("cpu"), weights, problem.inputs(2))
        truth = Truth(problem, problem.inputs(1), weights)
        output = int8.build(problem, setup)(truth.inputs)
        coarser = _int8.LEVELS / _int8.weight_levels(torch.device("cpu"))
        with pytest.raises(WrongOutput, match="claims to compute"):
            verify(output * (1 + 0.01 * coarser), int8, setup, truth)

    def test_the_graph_multiplies_integers(self):
        problem = FeedForward(seq_len=4, gated=True, dim=16, hidden_dim=32)
        weights = problem.weights(0)
        model = graph(problem, weights, matrices(weights))
        operators = [node.op_type for node in model.graph.node]
        assert operators.count("MatMulInteger") == 3
        assert not {"Gemm", "MatMul"} & set(operators)
        assert operators.count("DynamicQuantizeLinear") == 2  # the gate reads what W1 reads

    def test_holds_a_quarter_of_the_bytes(self):
        problem = FeedForward(seq_len=4)
        weights = problem.weights(0)
        run = int8.build(problem, Setup(torch.device("cpu"), weights))
        assert 0.25 < run.weight_bytes / weights.nbytes < 0.26

    def test_the_gpu_path_computes_its_claim(self):
        """torch._int_mm with a scale per token: it runs on a CPU just as well."""
        from kerneldyno.kernels.feedforward.int8 import _on_gpu

        for variant, tokens in ((VARIANTS[0], 5), (VARIANTS[4], 64)):
            problem = FeedForward(seq_len=tokens, dim=64, hidden_dim=128, **variant)
            weights, inputs = problem.weights(0), problem.inputs(1)
            integers = matrices(weights)
            found = _on_gpu(problem, Setup(torch.device("cpu"), weights), integers)(inputs)
            claimed = problem.formula(inputs.x.double(), integers.dequantized(weights), _int8.rounded_per_token)
            exact = problem.reference(inputs, weights)
            assert float((found - claimed).norm()) < 0.1 * float((claimed - exact).norm())
            assert float((claimed - exact).norm() / exact.norm()) < 0.03
