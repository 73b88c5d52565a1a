"""No correct kernel is rejected: random problems of every operator, with sizes that fit nothing, through the whole gate.

A few of each here, shrunk where one fails; `kerneldyno selftest --only "right kernels"` looks at two hundred of each.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerneldyno.bench.gate.examine import Gate
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import ACTIVATIONS, NORMS, FeedForward
from kerneldyno.kernels.layer.problem import MASKS, Layer
from kerneldyno.kernels.registry import DTYPES, Device, Setup

CPU = torch.device("cpu")
LENGTHS = st.one_of(st.sampled_from([1, 2, 63, 64, 65, 127, 129, 200]), st.integers(1, 160))
SLOW_TO_BUILD = {"compiled", "flex"}


@st.composite
def attentions(draw):
    kv_heads, group = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 1, 2, 4]))
    q_len, lengths = draw(LENGTHS), draw(st.sampled_from(["", "", "padding", "ragged"]))
    kv_len = draw(st.one_of(st.just(q_len), LENGTHS))
    direction = draw(st.sampled_from(["forward", "forward", "backward"]))
    return Attention(
        batch=draw(st.integers(1, 3)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        q_len=q_len,
        kv_len=max(q_len, kv_len) if lengths == "ragged" else kv_len,
        head_dim=draw(st.sampled_from([8, 16, 17, 32, 64, 80, 96, 128])),
        causal=draw(st.booleans()),
        padding=lengths == "padding",
        ragged=lengths == "ragged",
        bias=draw(st.sampled_from(["none", "none", "additive", "boolean"])),
        window=draw(st.sampled_from([0, 0, 1, 33])),
        softcap=draw(st.sampled_from([0.0, 0.0, 3.0])),
        page_size=draw(st.sampled_from([0, 0, 1, 16])) if direction == "forward" else 0,
        dtype=draw(st.sampled_from(DTYPES)),
        direction=direction,
    )


@st.composite
def networks(draw):
    return FeedForward(
        batch=draw(st.integers(1, 3)),
        seq_len=draw(LENGTHS),
        dim=draw(st.sampled_from([1, 8, 17, 64, 80])),
        hidden_dim=draw(st.sampled_from([1, 16, 33, 128])),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        norm=draw(st.sampled_from(list(NORMS))),
        gated=draw(st.booleans()),
        bias=draw(st.booleans()),
        residual=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
    )


@st.composite
def layers(draw):
    heads = draw(st.sampled_from([1, 2, 4]))
    return Layer(
        batch=draw(st.integers(1, 3)),
        seq_len=draw(LENGTHS),
        dim=heads * draw(st.sampled_from([8, 16, 20])),
        heads=heads,
        hidden_dim=draw(st.sampled_from([16, 33, 64])),
        mask=draw(st.sampled_from(list(MASKS))),
        padding=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
    )


def passes(kernels, problem) -> int:
    """Put every kernel that takes the problem through the gate; the number of them."""
    gate = Gate(problem, Setup(CPU))
    able = [k for k in kernels.values() if k.operator == problem.operator and k.family not in SLOW_TO_BUILD]
    able = [kernel for kernel in able if kernel.why_not(problem, Device("cpu")) is None]
    for kernel in able:
        gate.admit(kernel)
    return len(able)


def all_pass(kernels, problems, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(problem=problems)
    def each(problem):
        assert passes(kernels, problem) >= 1

    each()


OPERATORS = pytest.mark.parametrize("problems", [attentions(), networks(), layers()], ids=["attention", "feedforward", "layer"])


@OPERATORS
def test_no_correct_kernel_is_rejected(kernels, problems):
    all_pass(kernels, problems, 8)
