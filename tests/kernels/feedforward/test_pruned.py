from __future__ import annotations

import pytest
import torch

from kerneldyno.kernels.feedforward import pruned as kernels
from kerneldyno.kernels.feedforward._neurons import by_activations, by_weights, operand_norms
from kerneldyno.kernels.feedforward.problem import ACTIVATIONS, FeedForward, FeedForwardInputs, FeedForwardWeights, activate
from kerneldyno.kernels.feedforward.pruned import activate_in_place, forward, kept_neurons, pruned_weights
from kerneldyno.kernels.registry import Kernel, Setup

CPU = torch.device("cpu")
SHARES = {"pruned_25": 0.25, "pruned": 0.5, "pruned_50_activations": 0.5, "pruned_75": 0.75}


def error(kernel: Kernel, problem: FeedForward, setup: Setup, inputs: FeedForwardInputs) -> float:
    """Distance from the exact result, relative to it."""
    exact = problem.reference(inputs, setup.weights)
    return float((kernel.build(problem, setup)(inputs) - exact).norm() / exact.norm())


def test_keeps_the_strongest_half() -> None:
    problem = FeedForward(seq_len=4, dim=16, hidden_dim=64, gated=True)
    weights = problem.weights(0)
    # the first half of the neurons is made much stronger
    weights = weights.replace(w1=torch.cat([weights.w1[:32] * 100, weights.w1[32:]]))
    small = pruned_weights(problem, Setup(CPU, weights))
    assert torch.equal(small.w1, weights.w1[:32])
    assert weights.b_gate is not None
    assert small.b_gate is not None
    assert torch.equal(small.b_gate, weights.b_gate[:32])
    assert torch.equal(small.w2, weights.w2[:, :32])
    assert small.w2.is_contiguous()
    assert small.b2 is weights.b2


@pytest.mark.parametrize("name", ["pruned", "pruned_50_activations"])
def test_neurons_that_do_nothing_are_not_missed(name: str) -> None:
    problem = FeedForward(seq_len=4, dim=16, hidden_dim=64)
    weights = problem.weights(0)
    weights = weights.replace(w2=torch.cat([weights.w2[:, :32], torch.zeros(16, 32)], dim=1))
    run = getattr(kernels, name).build(problem, Setup(CPU, weights, problem.inputs(2)))
    inputs = problem.inputs(1)
    torch.testing.assert_close(run(inputs), problem.naive(inputs, weights), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "share"), SHARES.items())
def test_holds_its_share_of_the_bytes(name: str, share: float) -> None:
    problem = FeedForward(seq_len=4)
    weights = problem.weights(0)
    run = getattr(kernels, name).build(problem, Setup(CPU, weights, problem.inputs(1)))
    assert run.weight_bytes / weights.nbytes == pytest.approx(share, abs=0.01)


def test_the_fewer_neurons_the_farther_from_exact() -> None:
    problem = FeedForward(seq_len=32, dim=64, hidden_dim=256)
    setup, inputs = Setup(CPU, problem.weights(0), problem.inputs(1)), problem.inputs(2)
    errors = [error(kernel, problem, setup, inputs) for kernel in (kernels.pruned_75, kernels.pruned, kernels.pruned_25)]
    assert errors == sorted(errors)
    assert errors[0] > 0.2
    assert errors[2] < 1


def one_silent_half(problem: FeedForward) -> tuple[FeedForwardWeights, FeedForwardInputs, FeedForwardInputs]:
    """Weights, calibration and inputs: large weights on features of x that are never more than 1 % of the others."""
    weights, quiet = problem.weights(0), problem.dim // 2
    w1, half = torch.zeros_like(weights.w1), problem.hidden_dim // 2
    w1[:half, quiet:] = 5 * weights.w1[:half, quiet:]
    w1[half:, :quiet] = weights.w1[half:, :quiet]

    def uneven(inputs: FeedForwardInputs) -> FeedForwardInputs:
        x = inputs.x.clone()
        x[..., quiet:] *= 0.01
        return inputs.replace(x=x)

    return weights.replace(w1=w1), uneven(problem.inputs(1)), uneven(problem.inputs(2))


@pytest.mark.parametrize("gated", [False, True])
def test_activations_see_which_large_weights_meet_nothing(gated: bool) -> None:
    problem = FeedForward(seq_len=64, dim=32, hidden_dim=128, norm="none", bias=False, gated=gated, activation="silu")
    weights, calibration, inputs = one_silent_half(problem)
    setup = Setup(CPU, weights, calibration)
    assert kept_neurons(problem, setup, 0.5, by_weights).max() < 64
    assert kept_neurons(problem, setup, 0.5, by_activations).min() >= 64
    assert error(kernels.pruned, problem, setup, inputs) > 0.9
    assert error(kernels.pruned_50_activations, problem, setup, inputs) < 0.1


@pytest.mark.parametrize("gated", [False, True])
def test_norms_of_what_meets_the_matrices(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = FeedForward(batch=2, seq_len=7, dim=16, hidden_dim=24, gated=gated, activation="gelu")
    weights, inputs = problem.weights(0).map(torch.Tensor.double), problem.inputs(1)
    h = problem.normalize(inputs.x.double(), weights)
    a = activate("gelu", torch.nn.functional.linear(h, weights.w_gate if gated else weights.w1, weights.b_gate if gated else weights.b1))
    a = a * torch.nn.functional.linear(h, weights.w1, weights.b1) if gated else a
    monkeypatch.setattr("kerneldyno.kernels.feedforward._neurons.BLOCK_HIDDEN", 100)  # four tokens at a time
    first, second = operand_norms(problem, problem.weights(0), inputs)
    torch.testing.assert_close(first, h.flatten(0, 1).norm(dim=0))
    torch.testing.assert_close(second, a.flatten(0, 1).norm(dim=0))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_in_place_are_the_same_function(name: str) -> None:
    x = torch.randn(3, 40)
    expected = activate(name, x.clone())
    given = x.clone()
    assert activate_in_place(name, given).data_ptr() == given.data_ptr()
    assert torch.equal(given, expected)


@pytest.mark.parametrize("gated", [False, True])
def test_the_thrifty_formula_is_the_formula_and_leaves_its_inputs_alone(gated: bool) -> None:
    for activation in ACTIVATIONS:
        for norm in ("none", "rmsnorm"):
            problem = FeedForward(seq_len=5, dim=16, hidden_dim=24, gated=gated, activation=activation, norm=norm, residual=True)
            weights, inputs = problem.weights(0), problem.inputs(1)
            before = inputs.x.clone()
            found = forward(problem, inputs.x[0], weights)
            assert torch.equal(inputs.x, before)
            torch.testing.assert_close(found, problem.naive(inputs, weights)[0])
