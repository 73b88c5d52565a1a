from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kerneldyno.kernels.layer.problem import Layer

PROBLEMS = st.builds(
    lambda heads, head_dim, **fields: Layer(heads=heads, dim=heads * head_dim, **fields),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 5),
    batch=st.integers(1, 3),
    seq_len=st.integers(1, 7),
    hidden_dim=st.integers(1, 12),
    mask=st.sampled_from(["none", "causal", "boolean"]),
    padding=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)


def norm_by_hand(row, weight, bias):
    return (row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + 1e-5) * weight + bias


def by_hand(problem, inputs, weights):
    """Token by token and head by head, in numpy."""
    w = {name: tensor.double().numpy() for name, tensor in weights.tensors().items()}
    dim, size = problem.dim, problem.head_dim
    result = np.zeros((problem.batch, problem.seq_len, dim))
    for b, x in enumerate(inputs.x.double().numpy()):
        length = problem.seq_len if inputs.lengths is None else int(inputs.lengths[b])
        qkv = x @ w["w_qkv"].T + w["b_qkv"]
        q, k, v = qkv[:, :dim], qkv[:, dim : 2 * dim], qkv[:, 2 * dim :]
        for i in range(problem.seq_len):
            seen = [
                j
                for j in range(length)
                if (problem.mask != "causal" or j <= i) and (inputs.mask is None or bool(inputs.mask[i, j]))
            ]  # fmt: skip
            row = np.zeros(dim)
            for head in range(problem.heads):
                part = slice(head * size, (head + 1) * size)
                scores = np.array([q[i, part] @ k[j, part] / math.sqrt(size) for j in seen])
                shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                row[part] = sum(share * v[j, part] for share, j in zip(shares, seen, strict=True))
            z = norm_by_hand(x[i] + w["w_out"] @ row + w["b_out"], w["norm1_weight"], w["norm1_bias"])
            fed = z + w["w2"] @ np.maximum(w["w1"] @ z + w["b1"], 0) + w["b2"]
            result[b, i] = norm_by_hand(fed, w["norm2_weight"], w["norm2_bias"])
    return result


@settings(max_examples=40, deadline=None)
@given(PROBLEMS, st.integers(0, 99))
def test_reference_is_the_mathematics(problem, seed):
    inputs, weights = problem.inputs(seed), problem.weights(seed + 1)
    found = problem.reference(inputs, weights)
    assert found.dtype == torch.float64
    # LayerNorm over very few features divides by next to nothing, and magnifies what the order of sums changes
    np.testing.assert_allclose(found.numpy(), by_hand(problem, inputs, weights), rtol=1e-7, atol=1e-8)


def torchs_own(problem, inputs, weights):
    """nn.TransformerEncoderLayer in float64, with gradients on so that it takes its slow path: a second opinion."""
    layer = nn.TransformerEncoderLayer(problem.dim, problem.heads, problem.hidden_dim, 0.0, batch_first=True, dtype=torch.float64)
    names = {
        "self_attn.in_proj_weight": "w_qkv", "self_attn.in_proj_bias": "b_qkv",
        "self_attn.out_proj.weight": "w_out", "self_attn.out_proj.bias": "b_out",
        "linear1.weight": "w1", "linear1.bias": "b1", "linear2.weight": "w2", "linear2.bias": "b2",
        "norm1.weight": "norm1_weight", "norm1.bias": "norm1_bias", "norm2.weight": "norm2_weight", "norm2.bias": "norm2_bias",
    }  # fmt: skip
    layer.load_state_dict({theirs: getattr(weights, ours).double() for theirs, ours in names.items()})
    hidden = None if inputs.mask is None else ~inputs.mask
    if problem.mask == "causal":
        hidden = torch.ones(problem.seq_len, problem.seq_len, dtype=torch.bool).triu(1)
    padded = None if inputs.lengths is None else torch.arange(problem.seq_len) >= inputs.lengths[:, None]
    return layer.train()(inputs.x.double(), src_mask=hidden, src_key_padding_mask=padded).detach()


@pytest.mark.parametrize("mask", ["none", "causal", "boolean"])
@pytest.mark.parametrize("padding", [False, True])
def test_reference_agrees_with_torchs_own_layer(mask, padding):
    problem = Layer(batch=3, seq_len=17, dim=32, heads=4, hidden_dim=48, mask=mask, padding=padding)
    inputs, weights = problem.inputs(0), problem.weights(1)
    found, theirs = problem.reference(inputs, weights), torchs_own(problem, inputs, weights)
    torch.testing.assert_close(problem.compared(found, inputs), problem.compared(theirs, inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_naive_is_near_in_the_problems_dtype(dtype):
    problem = Layer(batch=2, seq_len=9, dim=32, heads=4, hidden_dim=64, mask="boolean", padding=True, dtype=dtype)
    inputs, weights = problem.inputs(0), problem.weights(1)
    naive, right = problem.naive(inputs, weights), problem.reference(inputs, weights)
    assert naive.dtype == getattr(torch, dtype)
    assert float((naive.double() - right).abs().max()) < 16 * torch.finfo(naive.dtype).eps * float(right.abs().max())


@given(PROBLEMS, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_query_sees_a_key(problem, seed):
    """A layer that divides by an empty softmax would spread NaN; PyTorch's does."""
    inputs = problem.inputs(seed)
    seen = torch.ones(problem.batch, problem.seq_len, problem.seq_len, dtype=torch.bool)
    if inputs.mask is not None:
        seen &= inputs.mask
        assert bool(inputs.mask.diagonal().all())
    if inputs.lengths is not None:
        assert inputs.lengths.tolist() == list(problem.attention.lengths())
        seen &= (torch.arange(problem.seq_len) < inputs.lengths[:, None])[:, None]
    if problem.mask == "causal":
        seen &= torch.ones_like(seen).tril()
    assert bool(seen.any(-1).all())


def test_compared_forgets_padded_rows_even_nan():
    problem = Layer(batch=2, seq_len=4, dim=8, heads=2, hidden_dim=8, padding=True)
    inputs = problem.inputs(0)
    first, second = inputs.lengths.tolist()
    assert first < second == 4
    output = torch.ones(2, 4, 8)
    output[0, first:] = torch.nan
    kept = problem.compared(output, inputs)
    assert kept.sum() == (first + second) * 8
    assert torch.isnan(output[0, first:]).all()  # the output itself is left as it is


def test_known_sizes():
    problem = Layer(batch=2, seq_len=128)
    tokens, dim, hidden = 256, 512, 2048
    assert problem.flops() == tokens * (2 * dim * 4 * dim + 2 * 2 * dim * hidden) + 4 * 2 * 8 * 128 * 128 * 64
    assert problem.parameters == sum(tensor.numel() for tensor in problem.weights(0).tensors().values())
    assert problem.min_bytes() == 4 * (2 * tokens * dim + problem.parameters)
    assert Layer(batch=2, seq_len=128, mask="boolean").min_bytes() == problem.min_bytes() + 128 * 128
    assert Layer(batch=2, seq_len=128, mask="causal").flops() < problem.flops()
    assert (problem.shape, problem.tokens, problem.head_dim) == ((2, 128), 256, 64)


def test_features_and_label():
    assert Layer(seq_len=8).features == frozenset()
    assert Layer(seq_len=8).label == "1×8 512/8→2048 fp32"
    problem = Layer(batch=2, seq_len=8, mask="boolean", padding=True, dtype="bfloat16")
    assert problem.features == {"mask", "padding"}
    assert problem.label == "2×8 512/8→2048 mask padding bf16"
    assert Layer(seq_len=8, mask="causal").features == {"causal"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seq_len": 0}, "seq_len 0 is impossible"),
        ({"seq_len": 4, "heads": 7}, "dim 512 cannot be split among 7 heads"),
        ({"seq_len": 4, "mask": "lower"}, "mask 'lower' is unknown: choose from none, causal, boolean"),
    ],
)
def test_impossible_problems_say_why(fields, words):
    with pytest.raises(ValueError, match=words):
        Layer(**fields)
