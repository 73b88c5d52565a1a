from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels.feedforward import problem as module
from kerneldyno.kernels.feedforward.problem import ACTIVATIONS, NORMS, FeedForward

PROBLEMS = st.builds(
    FeedForward,
    batch=st.integers(1, 3),
    seq_len=st.integers(1, 9),
    dim=st.integers(1, 12),
    hidden_dim=st.integers(1, 20),
    activation=st.sampled_from(ACTIVATIONS),
    norm=st.sampled_from(list(NORMS)),
    gated=st.booleans(),
    bias=st.booleans(),
    residual=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)

ACTIVATION_BY_HAND = {
    "relu": lambda a: max(a, 0.0),
    "gelu": lambda a: a * (1 + math.erf(a / math.sqrt(2))) / 2,
    "gelu_tanh": lambda a: a / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))),
    "silu": lambda a: a / (1 + math.exp(-a)),
}


def by_hand(problem, x, weights):
    """One token at a time, in numpy, without any of torch's functions."""
    w = {name: tensor.double().numpy() for name, tensor in weights.tensors().items()}
    rows = []
    for row in x.double().numpy().reshape(-1, problem.dim):
        h = row
        if problem.norm == "layernorm":
            h = (row - row.mean()) / np.sqrt(((row - row.mean()) ** 2).mean() + 1e-5) * w["norm_weight"] + w["norm_bias"]
        elif problem.norm == "rmsnorm":
            h = row / np.sqrt((row**2).mean() + 1e-6) * w["norm_weight"]
        up = w["w1"] @ h + w.get("b1", 0)
        act = np.vectorize(ACTIVATION_BY_HAND[problem.activation], otypes=[float])
        a = act(w["w_gate"] @ h + w.get("b_gate", 0)) * up if problem.gated else act(up)
        rows.append(w["w2"] @ a + w.get("b2", 0) + (row if problem.residual else 0))
    return np.array(rows).reshape(x.shape)


@settings(max_examples=60, deadline=None)
@given(PROBLEMS, st.integers(0, 99))
def test_reference_is_the_mathematics(problem, seed):
    inputs, weights = problem.inputs(seed), problem.weights(seed + 1)
    found = problem.reference(inputs, weights)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), by_hand(problem, inputs.x, weights), rtol=1e-9, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(PROBLEMS, st.integers(0, 99))
def test_naive_is_near_in_the_problems_dtype(problem, seed):
    inputs, weights = problem.inputs(seed), problem.weights(seed + 1)
    naive, right = problem.naive(inputs, weights), problem.reference(inputs, weights)
    assert naive.dtype == getattr(torch, problem.dtype)
    # a row of one number (dim 1) is normalized to zero: compared at the scale of what entered, too
    scale = max(1.0, float(right.abs().max()), float(inputs.x.abs().max()))
    assert float((naive.double() - right).abs().max()) <= 32 * torch.finfo(naive.dtype).eps * scale


def test_reference_in_blocks_of_tokens_is_the_same(monkeypatch):
    problem = FeedForward(batch=2, seq_len=7, dim=8, hidden_dim=16)
    inputs, weights = problem.inputs(0), problem.weights(1)
    whole = problem.reference(inputs, weights)
    monkeypatch.setattr(module, "BLOCK_HIDDEN", 48)  # three tokens at a time
    torch.testing.assert_close(problem.reference(inputs, weights), whole, rtol=1e-13, atol=1e-13)


def test_equal_seeds_give_equal_values_and_others_do_not():
    problem = FeedForward(seq_len=4, dim=8, hidden_dim=16, gated=True)
    for draw in (problem.inputs, problem.weights):
        assert all(torch.equal(a, b) for a, b in zip(draw(5).tensors().values(), draw(5).tensors().values(), strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(draw(5).tensors().values(), draw(6).tensors().values(), strict=True))


def test_weights_keep_the_variance_and_no_bias_is_zero():
    problem = FeedForward(seq_len=64, dim=256, hidden_dim=1024, gated=True, residual=False)
    weights = problem.weights(0)
    assert float(weights.w1.std()) == pytest.approx(256**-0.5, rel=0.02)
    assert float(weights.w2.std()) == pytest.approx(1024**-0.5, rel=0.02)
    assert all(float(tensor.abs().max()) > 0 for tensor in weights.tensors().values())
    assert 0.1 < float(problem.reference(problem.inputs(1), weights).std()) < 3


@pytest.mark.parametrize("problem", [FeedForward(seq_len=1), FeedForward(seq_len=1, norm="rmsnorm", gated=True, bias=False)])
def test_parameters_counts_the_weights(problem):
    assert problem.parameters == sum(tensor.numel() for tensor in problem.weights(0).tensors().values())


def test_known_sizes():
    seed = FeedForward(batch=4, seq_len=128)
    assert seed.flops() == 2 * 512 * 512 * 2048 * 2
    assert seed.min_bytes() == 4 * (2 * 512 * 512 + 2 * 512 * 2048 + 2048 + 512 + 2 * 512)
    assert (seed.shape, seed.tokens) == ((4, 128), 512)
    llama = FeedForward(seq_len=16, dim=4096, hidden_dim=14336, activation="silu", norm="rmsnorm", gated=True, bias=False, dtype="bfloat16")
    assert llama.flops() == 2 * 16 * 4096 * 14336 * 3
    assert llama.min_bytes() == 2 * (2 * 16 * 4096 + 3 * 4096 * 14336 + 4096)


def test_features_and_label():
    assert FeedForward(seq_len=8).features == {"relu", "layernorm", "bias"}
    problem = FeedForward(batch=4, seq_len=128, activation="silu", norm="none", gated=True, bias=False, residual=True, dtype="float16")
    assert problem.features == {"silu", "gated", "residual"}
    assert FeedForward(batch=4, seq_len=128).label == "4×128 512→2048 relu layernorm fp32"
    assert problem.label == "4×128 512→2048 silu gated residual no bias fp16"


@given(PROBLEMS, PROBLEMS)
def test_labels_tell_problems_apart(one, other):
    assert (one.label == other.label) == (one == other)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seq_len": 0}, "seq_len 0 is impossible"),
        ({"seq_len": 4, "dim": -1}, "dim -1 is impossible"),
        ({"seq_len": 4, "hidden_dim": 2.5}, "hidden_dim 2.5 is impossible"),
        ({"seq_len": 4, "activation": "swish"}, "activation 'swish' is unknown: choose from relu"),
        ({"seq_len": 4, "norm": "batch"}, "norm 'batch' is unknown: choose from none"),
        ({"seq_len": 4, "dtype": "int3"}, "dtype 'int3' is unknown"),
        ({"seq_len": 4, "direction": "sideways"}, "direction 'sideways' is not defined for feedforward"),
    ],
)
def test_impossible_problems_say_why(fields, words):
    with pytest.raises(ValueError, match=words):
        FeedForward(**fields)
