from __future__ import annotations

import shutil

import pytest
import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.layer.encoder import encoder
from kerneldyno.kernels.layer.int8 import int8
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.layer.pruned import pruned, pruned_weights
from kerneldyno.kernels.registry import Device, Setup

CPU = Device("cpu")
GPU = Device("cuda", capability=(9, 0))
ALL_KERNELS = registry.load()
KERNELS = {name: kernel for name, kernel in ALL_KERNELS.items() if kernel.operator == "layer"}
ALIKE = ("layer/pruned_heads_75", "layer/pruned_heads_50")
"""They differ from `pruned_heads_25` by a number."""
QUICK = [kernel for kernel in KERNELS.values() if "cpu" in kernel.devices and kernel.family != "compiled" and kernel.name not in ALIKE]

REFUSE_DECODERS = ("layer/torch", "layer/unpadded", "layer/onnxrt_fused")
"""PyTorch's layer is always the seed's, with norms before or after; without padding there is nothing to leave out; heads of 24
features are not turned."""

VARIANTS = [
    {},
    {"mask": "causal"},
    {"mask": "boolean"},
    {"padding": True},
    {"mask": "causal", "padding": True},
    {"mask": "boolean", "padding": True},
]
DECODERS = [
    {"norm_first": True, "activation": "gelu"},
    {"norm_first": True, "norm": "rmsnorm", "activation": "silu", "gated": True, "bias": False, "rope_theta": 1e4, "mask": "causal"},
    {"norm": "rmsnorm", "activation": "gelu_tanh", "gated": True, "kv_heads": 2, "padding": True, "epsilon": 1e-3},
    {"kv_heads": 2, "head_dim": 24, "rope_theta": 500.0, "rope_scaling": "linear:4", "bias": False, "mask": "boolean", "padding": True},
]
"""Layers other than the seed's."""
# one token; lengths around a tile; sizes that are no multiples of anything; heads of 16, 48 and 24
SIZES = [(1, 1, 64, 4, 256), (2, 127, 96, 2, 203), (3, 43, 144, 6, 300)]


@pytest.mark.parametrize("kernel", QUICK, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda fields: "-".join(f"{k}={v}" for k, v in fields.items()) or "plain")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernels_are_right(kernel, variant, dtype, verified):
    sizes = SIZES if dtype == "float32" else SIZES[1:2]
    took = 0
    for batch, seq_len, dim, heads, hidden_dim in sizes:
        problem = Layer(batch=batch, seq_len=seq_len, dim=dim, heads=heads, hidden_dim=hidden_dim, dtype=dtype, **variant)
        if kernel.why_not(problem, CPU) is None:
            verified(kernel, problem)
            took += 1
    refused = (kernel.family == "onnxrt" and dtype == "bfloat16") or (kernel.family == "unpadded" and "padding" not in variant)
    assert took == (0 if refused else len(sizes))


@pytest.mark.parametrize("kernel", QUICK, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("variant", DECODERS, ids=["vit", "llama", "gated post-norm", "grouped"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_layers_are_right(kernel, variant, dtype, verified):
    problem = Layer(batch=3, seq_len=43, dim=96, heads=4, hidden_dim=200, dtype=dtype, **variant)
    refusal = kernel.why_not(problem, CPU)
    if refusal is None:
        verified(kernel, problem)
    else:
        assert kernel.name in REFUSE_DECODERS, refusal


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
@pytest.mark.parametrize(("variant", "dtype"), [(VARIANTS[5], "bfloat16"), (DECODERS[1], "float32")])
def test_compiled_is_right(variant, dtype, verified):
    verified(KERNELS["layer/compiled"], Layer(batch=2, seq_len=65, dim=96, heads=2, hidden_dim=203, dtype=dtype, **variant))


@pytest.mark.parametrize("kernel", QUICK, ids=lambda kernel: kernel.name)
def test_strided_inputs(kernel):
    problem = Layer(batch=2, seq_len=5, dim=32, heads=2, hidden_dim=32, mask="boolean", padding=True)
    setup = Setup(torch.device("cpu"), problem.weights(0), problem.inputs(1))
    run = kernel.build(problem, setup)
    inputs = problem.inputs(2)
    strided = inputs.replace(x=inputs.x.transpose(0, 1).contiguous().transpose(0, 1), mask=inputs.mask.t().contiguous().t())
    assert not strided.x.is_contiguous()
    found = [problem.compared(run(given), given) for given in (strided, inputs)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_padding_hides_what_comes_after_it():
    problem = Layer(batch=2, seq_len=9, dim=32, heads=2, hidden_dim=32, padding=True)
    weights, inputs = problem.weights(0), problem.inputs(1)
    other = inputs.x.clone()
    for row, length in enumerate(problem.attention.lengths()):
        other[row, length:] = 7 * torch.randn(9 - length, 32)
    for kernel in QUICK:
        if kernel is not int8:  # one scale per tensor sees padded tokens, and its claim says so
            run = kernel.build(problem, Setup(torch.device("cpu"), weights, problem.inputs(2)))
            found = [problem.compared(run(inputs.replace(x=x)), inputs) for x in (inputs.x, other)]
            torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5, msg=kernel.name)


@pytest.mark.parametrize(
    ("name", "problem", "device", "words"),
    [
        ("onnxrt", Layer(seq_len=4, dtype="bfloat16"), CPU, "no bfloat16"),
        ("int8", Layer(seq_len=4, hidden_dim=70000), GPU, "its feedforward/int8 quantizes rows of up to"),
        ("fused", Layer(seq_len=4), CPU, "runs on cuda only"),
        ("fused", Layer(seq_len=4, dim=512, heads=1), GPU, "its attention/fused takes head_dim from 16 to 256, not 512"),
        ("torch", Layer(seq_len=4, dim=96, heads=3), CPU, "odd number of heads (3)"),
        ("torch", Layer(seq_len=4, dim=96, heads=4, head_dim=32), CPU, "has dim / heads features per head, not 32"),
        ("torch", Layer(seq_len=4, rope_theta=1e4, kv_heads=2), CPU, "does not take grouped, rotary"),
        ("unpadded", Layer(seq_len=4), CPU, "this problem has none: set padding=true"),
        ("pruned_heads_50", Layer(seq_len=4, kv_heads=1), CPU, "has a single group of heads: there is none to leave out"),
    ],
)
def test_refusals_are_sentences(name, problem, device, words):
    assert words in KERNELS[f"layer/{name}"].why_not(problem, device)


def test_parts_are_the_registrys_kernels():
    from kerneldyno.kernels.layer import fused
    from kerneldyno.kernels.layer._compose import part

    assert part("attention/sdpa") is ALL_KERNELS["attention/sdpa"]
    assert fused.FEEDFORWARD is ALL_KERNELS["feedforward/fused"]


class TestEncoder:
    def fast_calls(self, monkeypatch, problem):
        calls = []
        fast = torch._transformer_encoder_layer_fwd
        monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args, **kwargs: (calls.append(1), fast(*args, **kwargs))[1])
        run = encoder.build(problem, Setup(torch.device("cpu"), problem.weights(0)))
        run(problem.inputs(1))
        return len(calls)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_takes_the_fast_path(self, variant, monkeypatch):
        assert self.fast_calls(monkeypatch, Layer(batch=2, seq_len=5, dim=32, heads=2, hidden_dim=32, **variant)) == 1

    def test_an_odd_number_of_heads_would_not(self, monkeypatch):
        assert self.fast_calls(monkeypatch, Layer(seq_len=5, dim=48, heads=3, hidden_dim=32)) == 0

    def test_uses_the_given_weights_without_a_copy(self):
        from kerneldyno.kernels.layer.encoder import module

        weights = Layer(seq_len=5).weights(0)
        parameters = {parameter.data_ptr() for parameter in module(Layer(seq_len=5), weights).parameters()}
        assert parameters == {tensor.data_ptr() for tensor in weights.tensors().values()}


class TestInt8:
    def test_is_near_the_exact_result(self, verified):
        for variant in VARIANTS:
            found = verified(int8, Layer(batch=2, seq_len=64, dim=128, heads=4, hidden_dim=512, **variant))
            assert 1e-3 < found.distance.relative_rms < 0.03
            assert found.distance.cosine > 0.999

    def test_holds_about_a_quarter_of_the_bytes(self):
        problem = Layer(seq_len=4)
        weights = problem.weights(0)
        run = int8.build(problem, Setup(torch.device("cpu"), weights))
        assert 0.25 < run.weight_bytes / weights.nbytes < 0.26


class TestPruned:
    def test_keeps_the_strongest_heads_and_neurons(self):
        problem = Layer(seq_len=4, dim=64, heads=4, hidden_dim=64)
        weights = problem.weights(0)
        qkv = weights.w_qkv.view(3, 4, 16, 64).clone()
        qkv[2, [1, 3]] *= 50  # the values of two heads
        weights = weights.replace(w_qkv=qkv.view(192, 64), w1=torch.cat([weights.w1[:32], 50 * weights.w1[32:]]))
        small = pruned_weights(problem, weights)
        assert torch.equal(small.w_qkv, qkv[:, [1, 3]].reshape(96, 64))
        assert torch.equal(small.w_out, weights.w_out.view(64, 4, 16)[:, [1, 3]].reshape(64, 32))
        assert torch.equal(small.b_qkv, weights.b_qkv.view(3, 4, 16)[:, [1, 3]].reshape(96))
        assert torch.equal(small.w1, weights.w1[32:])
        assert small.w_out.is_contiguous()

    def test_heads_that_do_nothing_are_not_missed(self):
        problem = Layer(seq_len=4, dim=64, heads=4, hidden_dim=64)
        weights = problem.weights(0)
        weights.w_out.view(64, 4, 16)[:, [0, 2]] = 0
        weights.w2[:, :32] = 0
        inputs = problem.inputs(1)
        run = pruned.build(problem, Setup(torch.device("cpu"), weights))
        torch.testing.assert_close(run(inputs), problem.naive(inputs, weights), rtol=1e-4, atol=1e-5)

    def test_holds_half_of_the_bytes(self):
        problem = Layer(seq_len=4)
        weights = problem.weights(0)
        run = pruned.build(problem, Setup(torch.device("cpu"), weights))
        assert run.weight_bytes / weights.nbytes == pytest.approx(0.5, abs=0.01)

    def test_a_single_head_is_kept(self):
        problem = Layer(seq_len=4, dim=16, heads=1, hidden_dim=8)
        assert pruned_weights(problem, problem.weights(0)).w_qkv.shape == (48, 16)
