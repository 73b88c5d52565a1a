"""The layer's graphs in ONNX Runtime: which operators they are made of, and that these are right in every combination."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kerneldyno.kernels.layer import _onnx
from kerneldyno.kernels.layer.onnxrt import onnxrt
from kerneldyno.kernels.layer.onnxrt_fused import onnxrt_fused
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Device, Setup

pytest.importorskip("onnxruntime")
CPU = Device("cpu")
LLAMA = {"norm_first": True, "norm": "rmsnorm", "activation": "silu", "gated": True, "bias": False, "rope_theta": 1e4, "kv_heads": 2}
VIT = {"norm_first": True, "activation": "gelu"}
MASKS = [
    {},
    {"mask": "causal"},
    {"mask": "boolean"},
    {"padding": True},
    {"mask": "causal", "padding": True},
    {"mask": "boolean", "padding": True},
]


def named(variant: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in variant.items()) or "plain"


@pytest.mark.parametrize("kernel", [onnxrt, onnxrt_fused], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("mask", MASKS, ids=named)
@pytest.mark.parametrize(
    "kind", [LLAMA, {"kv_heads": 1}, {"rope_theta": 500.0, "rope_scaling": "linear:4"}], ids=["llama", "grouped", "rotary"]
)
def test_rotary_and_grouped_heads_under_every_mask(kernel: Any, mask: dict[str, Any], kind: dict[str, Any], verified: Any) -> None:
    problem = Layer(batch=2, seq_len=37, dim=64, heads=4, head_dim=32, hidden_dim=96, **mask, **kind)
    assert kernel.why_not(problem, CPU) is None
    verified(kernel, problem)


@pytest.mark.parametrize("kernel", [onnxrt, onnxrt_fused], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("scaling", ["", "linear:2", "llama3:8,1,4,16"])
def test_a_single_token_and_scaled_positions(kernel: Any, scaling: str, verified: Any) -> None:
    verified(kernel, Layer(seq_len=1, dim=64, heads=4, head_dim=16, hidden_dim=96, **LLAMA, rope_scaling=scaling))
    verified(kernel, Layer(seq_len=70, dim=64, heads=4, head_dim=16, hidden_dim=96, mask="causal", **LLAMA, rope_scaling=scaling))


def operators(monkeypatch: pytest.MonkeyPatch, problem: Layer, kind: str = "cpu") -> list[str]:
    """The types of the nodes that the fused graph for a device is made of."""
    seen: list[Any] = []

    def caught(model: Any, *_: Any) -> None:
        seen.append(model)

    monkeypatch.setattr(_onnx, "session", caught)
    weights = problem.weights(0)
    if kind == "cuda":
        from types import SimpleNamespace

        onnxrt_fused.build_run(problem, SimpleNamespace(device=torch.device("cuda"), weights=weights))  # type: ignore[arg-type]
    else:
        onnxrt_fused.build(problem, Setup(torch.device("cpu"), weights))
    return [node.op_type for node in seen[0].graph.node]


def test_the_graph_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    bert = operators(monkeypatch, Layer(seq_len=4, dim=64, heads=4, activation="gelu"))
    assert bert.count("MultiHeadAttention") == 1
    assert bert.count("LayerNormalization") == 2
    assert bert.count("Gemm") == 6
    llama = operators(monkeypatch, Layer(seq_len=4, dim=64, heads=4, mask="causal", **LLAMA))
    assert llama.count("GroupQueryAttention") == 1
    assert llama.count("Gemm") == 5  # q, k and v by one
    assert "RotaryEmbedding" not in llama


def test_the_graph_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    bert = operators(monkeypatch, Layer(seq_len=4, dim=64, heads=4, activation="gelu", dtype="float16"), "cuda")
    assert bert.count("SkipLayerNormalization") == 2
    assert bert.count("BiasGelu") == 1
    assert not {"Add", "LayerNormalization", "Gelu", "Cast"} & set(bert)
    vit = operators(monkeypatch, Layer(seq_len=4, dim=64, heads=4, dtype="float16", **VIT), "cuda")
    assert (vit.count("LayerNormalization"), vit.count("SkipLayerNormalization"), vit.count("Add")) == (1, 1, 1)
    llama = operators(monkeypatch, Layer(seq_len=4, dim=64, heads=4, mask="causal", dtype="float16", **LLAMA), "cuda")
    assert (llama.count("RMSNormalization"), llama.count("SkipSimplifiedLayerNormalization"), llama.count("Add")) == (1, 1, 1)
    causal = operators(monkeypatch, Layer(seq_len=4, dim=64, heads=4, mask="causal"), "cuda")
    assert "MultiHeadAttention" in causal  # the other takes 16 bit only


@pytest.mark.parametrize("kind", [{}, VIT, {"norm": "rmsnorm", "activation": "gelu_tanh"}, LLAMA, {"bias": False}], ids=named)
def test_the_graph_for_a_gpu_is_right_on_a_cpu(kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch, verified: Any) -> None:
    """Its SkipLayerNormalization and BiasGelu run here, too, only slower."""
    from kerneldyno.kernels.layer import onnxrt_fused as module

    monkeypatch.setattr(module, "_apart", module._together)
    verified(onnxrt_fused, Layer(batch=2, seq_len=19, dim=64, heads=4, hidden_dim=96, **kind))


@pytest.mark.parametrize(
    ("problem", "device", "words"),
    [
        (Layer(seq_len=4, dim=64, heads=4, **LLAMA), Device("cuda", capability=(9, 0)), "takes float16 and bfloat16 on cuda"),
        (Layer(seq_len=4, dim=96, heads=4, **LLAMA), CPU, "multiple of 16 features by their positions, not of 24"),
        (Layer(seq_len=4, dtype="bfloat16"), CPU, "no bfloat16"),
    ],
)
def test_refusals_are_sentences(problem: Layer, device: Device, words: str) -> None:
    assert words in (onnxrt_fused.why_not(problem, device) or "")
