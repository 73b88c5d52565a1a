"""8-bit attention computes exactly the approximation it claims, in integers, and stays near the exact result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels._onnxsession import session
from kerneldyno.kernels.attention.int8 import _signed_is_exact, centred, claim, graph, int8, quantized
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Setup


def distance(problem: Attention, output: torch.Tensor, seed: int = 1) -> float:
    exact = problem.reference(problem.inputs(seed))
    return float((output.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_claim_holds_and_the_exact_result_is_near(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    assert distance(problem, judge(int8, problem)) < 0.02


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**awkward)
    assert distance(problem, judge(int8, problem)) < 0.02


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(int8)


def test_a_bias_common_to_all_keys_does_no_harm(judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(heads=4, q_len=256)
    inputs = problem.inputs(0)
    inputs = inputs.replace(k=inputs.k + 30 * torch.randn(1, 4, 1, 64))
    exact = problem.reference(inputs)
    error = judge(int8, problem, inputs).double() - exact
    assert error.square().mean().sqrt() < 0.02 * exact.square().mean().sqrt()
    # without centring, the steps are as coarse as the bias is large
    values, step = quantized(inputs.k)
    plain = problem.reference(inputs.replace(k=values.double() * step.double()))
    assert (plain - exact).square().mean() > 25 * error.square().mean()


@pytest.mark.parametrize("signed_keys", [True, False])
@pytest.mark.parametrize("more", [{}, {"kv_heads": 2, "causal": True}])
def test_scores_come_from_integers_signed_or_not(signed_keys: bool, more: dict[str, Any]) -> None:
    problem = Attention(heads=4, q_len=33, head_dim=32, **more)
    model = graph(problem, signed_keys=signed_keys)
    assert [node.op_type for node in model.graph.node].count("MatMulInteger") == 1
    setup, inputs = Setup(torch.device("cpu")), problem.inputs(0)
    if signed_keys and not _signed_is_exact(setup):
        pytest.skip("products of this CPU saturate: the kernel takes unsigned keys here")
    feeds = {"q": inputs.q, "k": inputs.k, "v": inputs.v}
    if problem.causal:
        feeds["mask"] = torch.zeros(1, 1, 33, 33).masked_fill(~problem.position_mask("cpu"), -torch.inf)
    found = session(model, setup, list(feeds), "output").run(feeds, torch.empty_like(inputs.q))
    torch.testing.assert_close(found.double(), claim(problem, setup, inputs), rtol=0, atol=3e-6)


def test_quantization() -> None:
    x = torch.tensor([[0.0, 1.0, -2.0], [0.0, 0.0, 0.0]])
    values, step = quantized(x)
    assert values.tolist() == [[0, 64, -127], [0, 0, 0]]
    torch.testing.assert_close(step[0], torch.tensor([2 / 127]))
    assert centred(torch.ones(1, 1, 3, 2)).abs().max() == 0
