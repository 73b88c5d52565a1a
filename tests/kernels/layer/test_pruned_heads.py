"""Pruned heads: which ones go, by weights and by activations, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kerneldyno.kernels import registry
from kerneldyno.kernels.layer._heads import contributions
from kerneldyno.kernels.layer.problem import Layer, LayerWeights
from kerneldyno.kernels.layer.pruned_heads import (
    by_activations,
    by_weights,
    kept_weights,
    pruned_heads_25,
    pruned_heads_50,
    pruned_heads_50_activations,
    pruned_heads_75,
)
from kerneldyno.kernels.registry import Device, Setup

PROBLEM = Layer(batch=2, seq_len=12, dim=64, heads=8, hidden_dim=96)
KERNELS = (pruned_heads_75, pruned_heads_50, pruned_heads_25, pruned_heads_50_activations)


def scaled(weights: LayerWeights, values: dict[int, float]) -> LayerWeights:
    """Weights whose values' rows (and biases) of some heads are scaled."""
    w_qkv, b_qkv = weights.w_qkv.view(3, 8, 8, 64).clone(), weights.b_qkv.view(3, 8, 8).clone()
    for head, factor in values.items():
        w_qkv[2, head] *= factor
        b_qkv[2, head] *= factor
    return weights.replace(w_qkv=w_qkv.view(192, 64), b_qkv=b_qkv.view(192))


def setup_of(weights: LayerWeights, problem: Layer = PROBLEM) -> Setup:
    return Setup(torch.device("cpu"), weights, problem.inputs(9))


def without(weights: LayerWeights, heads: list[int]) -> LayerWeights:
    """The same layer with these heads' columns of the output projection cleared: what leaving them out means."""
    w_out = weights.w_out.view(64, 8, 8).clone()
    w_out[:, heads] = 0
    return weights.replace(w_out=w_out.view(64, 64))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_heads_of_small_weights_go_first(kernel: registry.Kernel) -> None:
    small = {1: 1e-3, 6: 2e-3, 2: 3e-3, 3: 4e-3, 0: 5e-3, 4: 6e-3}
    gone = list(small)[: {0.75: 2, 0.25: 6}.get(float(kernel.name.split("_")[2]) / 100, 4)]
    weights = scaled(PROBLEM.weights(0), small)
    inputs = PROBLEM.inputs(1)
    found = kernel.build(PROBLEM, setup_of(weights))(inputs)
    torch.testing.assert_close(found.double(), PROBLEM.reference(inputs, without(weights, gone)), rtol=0, atol=2e-5)


def test_dead_activations_show_only_to_who_looks_at_them() -> None:
    """The values' large rows meet a feature that is always zero: a head of large weights that adds almost nothing."""
    weights = PROBLEM.weights(0)
    w_qkv, b_qkv = weights.w_qkv.view(3, 8, 8, 64).clone(), weights.b_qkv.view(3, 8, 8).clone()
    dead = [0, 3, 5, 6]
    w_qkv[2, dead] *= 1e-3
    w_qkv[2, dead, :, -1] = 20.0
    b_qkv[2, dead] = 0
    weights = weights.replace(w_qkv=w_qkv.view(192, 64), b_qkv=b_qkv.view(192))
    drawn = PROBLEM.inputs(9)
    x = drawn.x.clone()
    x[..., -1] = 0
    setup = Setup(torch.device("cpu"), weights, drawn.replace(x=x))
    assert by_weights(PROBLEM, setup).topk(4).indices.sort().values.tolist() == dead
    assert by_activations(PROBLEM, setup).topk(4).indices.sort().values.tolist() == [1, 2, 4, 7]
    by_size = kept_weights(PROBLEM, setup, 0.5)
    assert torch.equal(by_size.w_qkv.view(3, 4, 8, 64), w_qkv[:, dead])
    inputs = setup.calibration
    exact = PROBLEM.reference(inputs, weights)
    errors = [
        float((kernel.build(PROBLEM, setup)(inputs) - exact).norm() / exact.norm())
        for kernel in (pruned_heads_50, pruned_heads_50_activations)
    ]
    assert errors[1] < 0.01 < 0.1 < errors[0]


def test_contributions_are_what_heads_add() -> None:
    problem = Layer(batch=3, seq_len=10, dim=64, heads=8, hidden_dim=64, padding=True)
    inputs, weights = problem.inputs(1), problem.weights(0)
    wide = weights.map(lambda tensor: tensor.double())
    q, k, v = F.linear(inputs.x.double(), wide.w_qkv, wide.b_qkv).view(3, 10, 3, 8, 8).permute(2, 0, 3, 1, 4)
    found = []
    for head in range(8):
        total = 0.0
        for row, length in enumerate(problem.attention.lengths()):
            seen = q[row, head, :length] @ k[row, head, :length].t() / 8**0.5
            output = seen.softmax(-1) @ v[row, head, :length]
            total += float((output @ wide.w_out[:, head * 8 : head * 8 + 8].t()).square().sum())
        found.append(total**0.5)
    torch.testing.assert_close(contributions(problem, weights, inputs), torch.tensor(found).double(), rtol=1e-6, atol=0)


def test_padded_tokens_do_not_count() -> None:
    problem = Layer(batch=2, seq_len=12, dim=64, heads=8, hidden_dim=96, padding=True)
    weights, inputs = problem.weights(0), problem.inputs(1)
    padded = torch.arange(12) >= inputs.lengths[:, None]
    louder = inputs.replace(x=torch.where(padded[..., None], 30 * inputs.x, inputs.x))
    torch.testing.assert_close(contributions(problem, weights, louder), contributions(problem, weights, inputs))


@pytest.mark.parametrize("mask", ["none", "causal", "boolean"])
def test_claims_hold(mask: str, verified) -> None:
    for kernel, dtype in zip(KERNELS, ("float32", "bfloat16", "float32", "bfloat16"), strict=True):
        found = verified(kernel, Layer(batch=2, seq_len=43, dim=96, heads=6, hidden_dim=203, mask=mask, padding=True, dtype=dtype))
        assert found.distance.relative_rms > 0.01


def test_claims_of_some_rows_are_those_rows_of_the_claim() -> None:
    setup, inputs, rows = setup_of(PROBLEM.weights(0)), PROBLEM.inputs(1), torch.tensor([0, 5, 11])
    for kernel in KERNELS:
        assert kernel.claim is not None
        whole, part = kernel.claim(PROBLEM, setup, inputs), kernel.claim(PROBLEM.at(rows), setup, inputs)
        torch.testing.assert_close(part, whole[:, rows], rtol=0, atol=1e-12)


def test_the_network_stays_whole_and_heads_cost_what_they_did() -> None:
    weights = PROBLEM.weights(0)
    for kernel, heads in zip(KERNELS, (6, 4, 2, 4), strict=True):
        run = kernel.build(PROBLEM, setup_of(weights))
        left = weights.nbytes - 4 * (8 - heads) * 8 * (4 * 64 + 3)
        assert run.weight_bytes == left


def test_a_single_head_is_refused_in_a_sentence() -> None:
    for kernel in KERNELS:
        assert "has a single head" in (kernel.why_not(Layer(seq_len=4, dim=16, heads=1, hidden_dim=8), Device("cpu")) or "")
