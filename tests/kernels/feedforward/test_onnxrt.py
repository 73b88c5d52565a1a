"""The feed-forward network's graphs in ONNX Runtime: which operators they are made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kerneldyno.bench.gate.identity import identify
from kerneldyno.kernels.feedforward import onnxrt, onnxrt_fused
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Device, Setup

pytest.importorskip("onnxruntime")
CPU = Device("cpu")


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("residual", [False, True])
def test_bias_and_gelu_are_one_operator_and_right(activation: str, dtype: str, residual: bool, verified: Any) -> None:
    problem = FeedForward(batch=2, seq_len=19, dim=100, hidden_dim=203, activation=activation, dtype=dtype, residual=residual)
    verified(onnxrt_fused.onnxrt_fused, problem)
    types = [node.op_type for node in onnxrt_fused.graph(problem, problem.weights(0), dtype).graph.node]
    assert types.count({"gelu": "BiasGelu", "gelu_tanh": "FastGelu"}[activation]) == 1
    assert (types.count("MatMul"), types.count("Gemm"), types.count("Gelu")) == (1, 1, 0)


@pytest.mark.parametrize(("activation", "operator"), [("gelu", "BiasGelu"), ("gelu_tanh", "FastGelu")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_is_seen_to_run(activation: str, operator: str, dtype: str) -> None:
    problem = FeedForward(seq_len=8, dim=32, hidden_dim=64, activation=activation, dtype=dtype)
    setup, kernel = Setup(torch.device("cpu"), problem.weights(0), problem.inputs(1)), onnxrt_fused.onnxrt_fused
    inputs = problem.inputs(2)
    found = identify(kernel, problem, setup, kernel.build(problem, setup), inputs)
    assert found == f"ONNX Runtime cpu: MatMul, {operator}, Gemm"


@pytest.mark.parametrize(
    "variant", [{}, {"activation": "silu"}, {"activation": "gelu", "bias": False}, {"activation": "gelu", "gated": True}]
)
def test_where_there_is_no_better_operator_it_says_so(variant: dict[str, Any]) -> None:
    problem = FeedForward(seq_len=8, **variant)
    assert "no better operators for than in onnxrt" in (onnxrt_fused.onnxrt_fused.why_not(problem, CPU) or "")
    assert onnxrt.onnxrt.why_not(problem, CPU) is None
