"""8-bit attention computes exactly the approximation it claims, in integers, and stays near the exact result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels._onnxsession import session
from kerneldyno.kernels.attention import _int8_graph
from kerneldyno.kernels.attention._int8_claims import by_block, by_row, centred, keys_by_block, quantized, values_by_feature
from kerneldyno.kernels.attention._int8_graph import FEWER_STEPS, blocks, graph, part, query_steps
from kerneldyno.kernels.attention._int8_tiles import BLOCK, LEAST, STEPS
from kerneldyno.kernels.attention.int8 import KERNELS, int8, ran
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, NotAsNamed, Setup, Trace

CPU = Setup(torch.device("cpu"))


def distance(problem: Attention, output: torch.Tensor, seed: int = 1) -> float:
    exact = problem.reference(problem.inputs(seed))
    return float((output.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_claim_holds_and_the_exact_result_is_near(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    assert distance(problem, judge(int8, problem)) < 0.025


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**awkward)
    assert distance(problem, judge(int8, problem)) < 0.02


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(int8)


def test_a_bias_common_to_all_keys_does_no_harm() -> None:
    problem = Attention(heads=4, q_len=256)
    inputs = problem.inputs(0)
    inputs = inputs.replace(k=inputs.k + 30 * torch.randn(1, 4, 1, 64, generator=torch.Generator().manual_seed(0)))
    exact = problem.reference(inputs)
    output = int8.build(problem, CPU)(inputs)
    error = output.double() - exact
    assert error.square().mean().sqrt() < 0.025 * exact.square().mean().sqrt()
    assert verify(output, int8, CPU, Truth(problem, inputs, None)).ratio < 1
    # without centring, the steps are as coarse as the bias is large
    for coarse in (by_row, by_block):
        plain = problem.reference(inputs.replace(k=coarse(inputs.k)))
        assert (plain - exact).square().mean() > 16 * error.square().mean()


@pytest.mark.parametrize("steps", [STEPS, FEWER_STEPS])
@pytest.mark.parametrize("more", [{}, {"kv_heads": 2, "causal": True}])
def test_scores_come_from_integers_whatever_the_steps(steps: int, more: dict[str, Any]) -> None:
    problem = Attention(heads=4, q_len=33, head_dim=32, **more)
    model = graph(problem, steps)
    assert [node.op_type for node in model.graph.node].count("MatMulInteger") == 1
    inputs = problem.inputs(0)
    if steps > query_steps():
        pytest.skip("products of this CPU saturate: the kernel takes fewer steps here")
    feeds = {"q": inputs.q, "k": inputs.k, "v": inputs.v}
    if problem.causal:
        feeds["mask"] = torch.zeros(1, 1, 33, 33).masked_fill(~problem.position_mask("cpu"), -torch.inf)
    found = session(model, CPU, list(feeds), "y").run(feeds, torch.empty_like(inputs.q))
    right = problem.reference(inputs.replace(q=by_row(inputs.q, steps), k=by_row(centred(inputs.k))))
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5)


FORMS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 2),
    "causal": ({"causal": True}, 2),
    "padding": ({"padding": True}, 3),
    "window": ({"window": 300}, 2),
    "bias": ({"bias": "additive"}, 3),
    "mask": ({"bias": "boolean", "causal": True}, 3),
}
"""Changes, and calls of the graph: heads of several batch rows go together where what hides keys is the same for them."""


@pytest.mark.parametrize(("more", "calls"), FORMS.values(), ids=FORMS)
def test_some_heads_and_queries_are_worked_on_after_the_others(
    more: dict[str, Any], calls: int, judge: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_int8_graph, "SCORES", 128 * 400 * 6)
    problem = Attention(batch=3, heads=4, kv_heads=2, q_len=150, kv_len=400, head_dim=16, **more)
    one = part(problem)
    assert problem.batch * problem.kv_heads // one.kv_heads == calls
    cut = blocks(one)
    assert [edges[:2] for edges in cut] == ([(0, 128), (128, 150)] if calls == 2 else [(0, 150)])
    assert (cut[0][2] < problem.kv_len) == (problem.causal and calls == 2)  # keys after the block are left out
    judge(int8, problem)
    count = len(cut)
    nodes = (("MatMulInteger", "CPUExecutionProvider"), ("MatMul", "CPUExecutionProvider"))
    assert ran(problem, CPU, Trace(nodes=nodes * count)).startswith("integer products: MatMulInteger")
    with pytest.raises(NotAsNamed, match=f"{count - 1} of .* ran in integers"):
        ran(problem, CPU, Trace(nodes=nodes * (count - 1) + nodes[1:]))


def test_what_hides_keys_may_differ_between_rows_and_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_int8_graph, "SCORES", 128 * 70)
    problem = Attention(batch=2, heads=4, kv_heads=2, q_len=70, head_dim=16, bias="additive")
    inputs = problem.inputs(0)
    assert part(problem).heads == 2
    for shape in ((2, 4, 70, 70), (2, 1, 70, 70), (1, 4, 1, 70), (2, 1, 1, 70), (1, 1, 70, 70)):
        given = inputs.replace(bias=torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        assert verify(int8.build(problem, CPU)(given), int8, CPU, Truth(problem, given, None)).ratio < 1


def test_quantization() -> None:
    x = torch.tensor([[0.0, 1.0, -2.0], [0.0, 0.0, 0.0]])
    values, step = quantized(x)
    assert values.tolist() == [[0, 64, -127], [0, 0, 0]]
    torch.testing.assert_close(step[0], torch.tensor([2 / 127]))
    torch.testing.assert_close(step[1], torch.tensor([LEAST / 127]))
    assert centred(torch.ones(1, 1, 3, 2)).abs().max() == 0


def test_padded_keys_and_values_have_no_part_in_steps() -> None:
    problem = Attention(batch=2, heads=1, q_len=2 * BLOCK, head_dim=16, padding=True)
    inputs = problem.inputs(0)
    junk = ~problem.padding_mask(inputs.lengths).mT
    given = inputs.replace(k=inputs.k.masked_fill(junk, 1e4), v=inputs.v.masked_fill(junk, float("nan")))
    for claimed in (keys_by_block, values_by_feature):
        assert torch.equal(claimed(given), claimed(inputs))
        assert not claimed(given)[0, 0, int(inputs.lengths[0]) :].any()


def test_a_block_shares_its_step() -> None:
    k = torch.zeros(1, 1, BLOCK + 2, 4)
    k[0, 0, 3, 1], k[0, 0, BLOCK - 1, 2], k[0, 0, BLOCK, 0] = 127.0, 10.4, 10.4
    found = by_block(k)
    assert found[0, 0, BLOCK - 1, 2] == 10  # steps of 1
    torch.testing.assert_close(found[0, 0, BLOCK, 0], torch.tensor(10.4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"causal": True, "padding": True, "window": 9, "kv_heads": 2}, None),
        ({"dtype": "float32"}, "takes float16 and bfloat16 there, not float32"),
        ({"bias": "boolean"}, "takes neither bias nor mask on cuda"),
        ({"head_dim": 264}, "takes head_dim from 16 to 256 on cuda, not 264"),
        ({"softcap": 3.0}, "does not take softcap"),
    ],
)
def test_refusals_on_cuda(changes: dict[str, Any], sentence: str | None) -> None:
    pytest.importorskip("triton")
    found = int8.why_not(Attention(**{"q_len": 64, "dtype": "bfloat16", **changes}), Device("cuda", capability=(9, 0)))
    assert found is None if sentence is None else sentence in (found or "")


def test_cards_without_its_instructions_are_refused() -> None:
    found = int8.why_not(Attention(q_len=64, dtype="float16"), Device("cuda", capability=(7, 5)))
    assert found == "is written for compute capability 8.0 and newer, not 7.5"


def test_on_cuda_all_its_kernels_have_to_run() -> None:
    problem, setup = Attention(q_len=64, dtype="float16"), Setup(torch.device("cuda"))
    assert ran(problem, setup, Trace(dict.fromkeys(KERNELS, 1))) == f"Triton: {', '.join(KERNELS)}"
    with pytest.raises(NotAsNamed, match="int8_keys_kernel did not run"):
        ran(problem, setup, Trace({"int8_sums_kernel": 1, "int8_prefill_kernel": 1}))
