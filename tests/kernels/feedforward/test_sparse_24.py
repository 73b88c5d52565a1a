from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.gate.examine import examine
from kerneldyno.kernels._cudagraph import recorded
from kerneldyno.kernels.feedforward import sparse_24 as kernels
from kerneldyno.kernels.feedforward._neurons import operand_norms
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.feedforward.sparse_24 import by_activations, claim, forward, sparse_weights, two_of_four
from kerneldyno.kernels.registry import Device, Setup

CPU = torch.device("cpu")
H200 = Device("cuda", capability=(9, 0))
VARIANTS = [
    {},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "gelu", "norm": "none", "residual": True},
]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@given(st.lists(st.lists(st.integers(0, 3), min_size=8, max_size=8), min_size=1, max_size=5))
def test_two_of_each_four_stay_and_none_larger_goes(rows: list[list[int]]) -> None:
    scores = torch.tensor(rows)
    mask = two_of_four(scores).view(-1, 4)
    assert (mask.sum(1) == 2).all()
    fours = scores.view(-1, 4)
    kept, gone = fours.masked_fill(~mask, 9).amin(1), fours.masked_fill(mask, -1).amax(1)
    assert (kept >= gone).all()


def test_of_equals_the_earlier_stay() -> None:
    assert two_of_four(torch.tensor([[1, 1, 1, 1, 0, 2, 0, 2]])).tolist() == [[True, True, False, False, False, True, False, True]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_of_each_matrix_stays_and_everything_else(variant: dict[str, object]) -> None:
    problem = FeedForward(seq_len=8, dim=32, hidden_dim=64, **variant)
    setup = Setup(CPU, problem.weights(0), problem.inputs(1))
    for factors in (kernels.by_weights, by_activations):
        weights = sparse_weights(problem, setup, factors)
        for name, tensor in weights.tensors().items():
            if name in kernels.MATRICES:
                assert tensor.count_nonzero() == tensor.numel() // 2
                old = setup.weights.tensors()[name]
                assert torch.equal(tensor[tensor != 0], old[tensor != 0])
            else:
                assert tensor is setup.weights.tensors()[name]


def test_what_stays_fits_the_format_of_the_hardware() -> None:
    """Compressed and taken apart again, by the layout that CUTLASS reads."""
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_from_dense_cutlass,
        sparse_semi_structured_to_dense_cutlass,
    )

    problem = FeedForward(seq_len=4, dim=64, hidden_dim=128, dtype="float16")
    weights = sparse_weights(problem, Setup(CPU, problem.weights(0)))
    values, places = sparse_semi_structured_from_dense_cutlass(weights.w1)
    assert values.shape == (128, 32)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, places), weights.w1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("factors", [kernels.by_weights, by_activations])
def test_the_formula_on_what_stays_is_the_claim(variant: dict[str, object], factors: kernels.Factors) -> None:
    problem = FeedForward(seq_len=8, dim=32, hidden_dim=64, **variant)
    setup, inputs = Setup(CPU, problem.weights(0), problem.inputs(1)), problem.inputs(2)
    found = forward(problem, inputs.x[0], sparse_weights(problem, setup, factors))
    claimed, exact = claim(problem, setup, inputs, factors), problem.reference(inputs, setup.weights)
    torch.testing.assert_close(found.double(), claimed[0], rtol=1e-4, atol=1e-4)
    assert 0.05 < float((claimed - exact).norm() / exact.norm()) < 1


def test_activations_keep_the_weights_that_meet_something() -> None:
    """Every other feature is nearly silent and has the larger weights."""
    problem = FeedForward(seq_len=64, dim=32, hidden_dim=64, norm="none", bias=False)
    loud = torch.tensor([0.01, 1.0]).repeat(16)
    weights = problem.weights(0)
    weights = weights.replace(w1=weights.w1.sign() * torch.tensor([2.0, 1.0]).repeat(16))
    calibration, inputs = (problem.inputs(seed) for seed in (1, 2))
    calibration, inputs = (given.replace(x=given.x * loud) for given in (calibration, inputs))
    setup = Setup(CPU, weights, calibration)
    torch.testing.assert_close(operand_norms(problem, weights, calibration)[0], calibration.x[0].double().norm(dim=0))
    assert sparse_weights(problem, setup).w1[:, 1::2].count_nonzero() == 0
    assert sparse_weights(problem, setup, by_activations).w1[:, 0::2].count_nonzero() == 0
    exact = problem.reference(inputs, weights)
    errors = [float((claim(problem, setup, inputs, factors) - exact).norm()) for factors in (kernels.by_weights, by_activations)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("problem", "device", "words"),
    [
        (FeedForward(seq_len=4, dtype="float16"), Device("cpu"), "runs on cuda only"),
        (FeedForward(seq_len=4), H200, "takes bfloat16, float16, not float32"),
        (FeedForward(seq_len=4, dim=72, dtype="float16"), H200, "multiples of 16, not dim 72 and hidden_dim 2048"),
        (FeedForward(seq_len=4, hidden_dim=100, dtype="float16"), H200, "multiples of 16"),
        (FeedForward(seq_len=4, dtype="float16"), Device("cuda", capability=(7, 5)), "compute capability 8.0, not 7.5"),
    ],
)
def test_refusals_are_sentences(problem: FeedForward, device: Device, words: str) -> None:
    for kernel in (kernels.sparse_24, kernels.sparse_24_activations):
        assert words in (kernel.why_not(problem, device) or "")


class TestOnAGpu:
    pytestmark = needs_gpu

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("tokens", [1, 37, 512])
    def test_passes_the_gate(self, variant: dict[str, object], dtype: str, tokens: int) -> None:
        problem = FeedForward(seq_len=tokens, dim=256, hidden_dim=512, dtype=dtype, **variant)
        for kernel in (kernels.sparse_24, kernels.sparse_24_activations):
            examine(kernel, problem, Setup(torch.device("cuda")))

    def test_holds_nine_sixteenths_of_the_bytes(self) -> None:
        problem = FeedForward(seq_len=16, dtype="bfloat16")
        weights = problem.weights(0, "cuda")
        run = kernels.sparse_24.build(problem, Setup(torch.device("cuda"), weights, problem.inputs(1, "cuda")))
        assert run.weight_bytes / weights.nbytes == pytest.approx(9 / 16, abs=0.02)  # type: ignore[attr-defined]

    def test_a_recorded_function_answers_for_new_inputs_in_new_memory(self) -> None:
        double = recorded(lambda x: (2 * x).t(), torch.zeros(3, 4, device="cuda"))
        given = [torch.randn(4, 3, device="cuda").t() for _ in range(3)]
        found = [double(x) for x in given]
        for x, y in zip(given, found, strict=True):
            assert torch.equal(y, 2 * x.t())
        assert len({y.data_ptr() for y in found}) == 3
