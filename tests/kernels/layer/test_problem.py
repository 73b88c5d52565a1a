from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from torch import nn

from kerneldyno.kernels.layer import _rotary
from kerneldyno.kernels.layer.problem import Layer

PROBLEMS = st.builds(
    lambda groups, group, head_dim, wider, rope_theta, **fields: Layer(
        heads=groups * group,
        kv_heads=groups,
        dim=groups * group * head_dim + wider,
        head_dim=head_dim,
        rope_theta=0.0 if head_dim % 2 else rope_theta,
        **fields,
    ),
    groups=st.integers(1, 3),
    group=st.integers(1, 2),
    head_dim=st.integers(1, 6),
    wider=st.integers(0, 2),
    batch=st.integers(1, 3),
    seq_len=st.integers(1, 7),
    hidden_dim=st.integers(1, 12),
    mask=st.sampled_from(["none", "causal", "boolean"]),
    padding=st.booleans(),
    norm_first=st.booleans(),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    epsilon=st.sampled_from([0.0, 1e-3]),
    activation=st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"]),
    gated=st.booleans(),
    bias=st.booleans(),
    rope_theta=st.sampled_from([0.0, 100.0]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)

ACTIVATED = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + special.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def norm_by_hand(problem, row, weight, bias):
    centred = row - row.mean() if problem.norm == "layernorm" else row
    epsilon = problem.epsilon or (1e-5 if problem.norm == "layernorm" else 1e-6)
    normed = centred / math.sqrt((centred**2).mean() + epsilon) * weight
    return normed if bias is None else normed + bias


def turned_by_hand(problem, row, position):
    """One head's features, as complex numbers of the two halves."""
    if not problem.rope_theta:
        return row
    half = problem.head_dim // 2
    angles = position * problem.rope_theta ** (-2 * np.arange(half) / problem.head_dim)
    turned = (row[:half] + 1j * row[half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag])


def attended_by_hand(problem, inputs, qkv, b):
    """[seq_len, heads · head_dim]: query by query and head by head."""
    length = problem.seq_len if inputs.lengths is None else int(inputs.lengths[b])
    size, heads, groups = problem.head_dim, problem.heads, problem.kv_heads
    result = np.zeros((problem.seq_len, heads * size))

    def head_of(start, head):
        return slice((start + head) * size, (start + head + 1) * size)

    for i in range(problem.seq_len):
        seen = [
            j
            for j in range(length)
            if (problem.mask != "causal" or j <= i) and (inputs.mask is None or bool(inputs.mask[i, j]))
        ]  # fmt: skip
        for head in range(heads):
            group = head * groups // heads
            query = turned_by_hand(problem, qkv[i, head_of(0, head)], i)
            keys = [turned_by_hand(problem, qkv[j, head_of(heads, group)], j) for j in seen]
            scores = np.array([query @ key / math.sqrt(size) for key in keys])
            shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            values = [qkv[j, head_of(heads + groups, group)] for j in seen]
            result[i, head * size : (head + 1) * size] = sum(share * value for share, value in zip(shares, values, strict=True))
    return result


def by_hand(problem, inputs, weights):
    """Token by token, in numpy."""
    w = {name: tensor.double().numpy() for name, tensor in weights.tensors().items()}
    result = np.zeros((problem.batch, problem.seq_len, problem.dim))

    def norm(which, row):
        return norm_by_hand(problem, row, w[f"norm{which}_weight"], w.get(f"norm{which}_bias"))

    def network(row):
        up = w["w1"] @ row + w.get("b1", 0)
        hidden = (
            ACTIVATED[problem.activation](w["w_gate"] @ row + w.get("b_gate", 0)) * up
            if problem.gated
            else ACTIVATED[problem.activation](up)
        )
        return w["w2"] @ hidden + w.get("b2", 0)

    for b, x in enumerate(inputs.x.double().numpy()):
        seen = np.array([norm(1, row) for row in x]) if problem.norm_first else x
        attended = attended_by_hand(problem, inputs, seen @ w["w_qkv"].T + w.get("b_qkv", 0), b) @ w["w_out"].T + w.get("b_out", 0)
        for i in range(problem.seq_len):
            if problem.norm_first:
                z = x[i] + attended[i]
                result[b, i] = z + network(norm(2, z))
            else:
                z = norm(1, x[i] + attended[i])
                result[b, i] = norm(2, z + network(z))
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


LLAMA = {
    "norm_first": True, "norm": "rmsnorm", "activation": "silu", "gated": True, "bias": False, "rope_theta": 5e5,
    "kv_heads": 2, "mask": "causal",
}  # fmt: skip


def test_a_decoder_layer_says_what_it_is():
    problem = Layer(seq_len=8, dim=512, heads=8, hidden_dim=1024, rope_scaling="llama3:8,1,4,8192", **LLAMA)
    assert problem.label == "1×8 512/8/2→1024 silu gated rmsnorm pre-norm rotary llama3:8,1,4,8192 no bias causal fp32"
    assert problem.features == {"causal", "silu", "gated", "unbiased", "rmsnorm", "norm_first", "rotary", "grouped"}
    assert problem.parameters == sum(tensor.numel() for tensor in problem.weights(0).tensors().values())
    assert Layer(**problem.fields()) == problem
    assert problem.flops() == 2 * 8 * (512 * (12 * 64) + 512 * 512 + 3 * 512 * 1024) + 4 * 8 * 64 * 8 * 8 // 2


@given(PROBLEMS)
def test_fields_make_the_same_layer(problem):
    assert Layer(**problem.fields()) == problem


def test_old_layers_keep_their_names():
    fields = {"batch", "seq_len", "dim", "heads", "hidden_dim", "mask", "padding", "dtype", "direction"}
    assert set(Layer(seq_len=8).fields()) == fields
    assert set(Layer(seq_len=8, kv_heads=2, head_dim=32).fields()) == fields | {"kv_heads", "head_dim"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"norm": "batchnorm"}, "norm 'batchnorm' is unknown: choose from layernorm, rmsnorm"),
        ({"heads": 8, "kv_heads": 3}, "heads 8 cannot share 3 kv_heads evenly"),
        ({"rope_theta": -1.0}, "rope_theta -1.0 is impossible"),
        ({"rope_theta": 1e4, "head_dim": 5}, "head_dim 5 cannot be turned in pairs"),
        ({"rope_scaling": "linear:2"}, "scales nothing without rope_theta"),
        ({"rope_theta": 1e4, "rope_scaling": "yarn:2"}, "rope_scaling 'yarn:2' is impossible"),
        ({"rope_theta": 1e4, "rope_scaling": "llama3:8,4,1,8192"}, "the low frequency factor must be less"),
        ({"rope_theta": 1e4, "rope_scaling": "linear:0"}, "rope_scaling 'linear:0' is impossible"),
        ({"epsilon": 2.0}, "epsilon 2.0 is impossible"),
        ({"activation": "swish"}, "activation 'swish' is unknown"),
    ],
)
def test_impossible_layers_say_why(fields, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Layer(seq_len=8, **fields)


def test_long_waves_are_stretched_and_short_ones_stay():
    plain, scaled = (_rotary.frequencies(128, 5e5, scaling) for scaling in ("", "llama3:8,1,4,8192"))
    waves = 2 * math.pi / plain
    assert torch.equal(scaled[waves < 8192 / 4], plain[waves < 8192 / 4])
    torch.testing.assert_close(scaled[waves > 8192], plain[waves > 8192] / 8)
    between = (waves > 8192 / 4) & (waves < 8192)
    assert bool(((scaled < plain) & (scaled > plain / 8))[between].all())
    assert bool(between.any())
    torch.testing.assert_close(_rotary.frequencies(128, 5e5, "linear:4"), plain / 4)


def test_scores_of_turned_vectors_depend_on_distance_alone():
    problem = Layer(seq_len=40, dim=32, heads=1, rope_theta=100.0)
    q, k = torch.randn(2, 1, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cos, sin = problem.rotation("cpu", torch.float64)
    turned = [_rotary.rotated(row.expand(40, 32), cos, sin) for row in (q, k)]
    scores = turned[0] @ turned[1].T
    for distance in (-17, 0, 5):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
