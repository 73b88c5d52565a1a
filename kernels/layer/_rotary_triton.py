"""Triton kernel that turns queries and keys by their positions, in place, in what the projection wrote."""

# Triton's dialect: arguments without types, constants in capitals
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._rotary_code import constants


@triton.jit
def rotate_kernel(p_x, p_cos, p_sin, T, S, s_x, HALF: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):
    """BT tokens of one head: features i and i + HALF of x [T, …], rows s_x apart, by the angles at position t % S of [S, HALF]."""
    i_h = tl.program_id(1)
    o_t, o_d = tl.program_id(0) * BT + tl.arange(0, BT), tl.arange(0, BD)
    m = (o_t < T)[:, None] & (o_d < HALF)[None, :]
    # [BT, BD]
    o_table = (o_t % S)[:, None] * HALF + o_d[None, :]
    b_cos, b_sin = tl.load(p_cos + o_table, mask=m, other=0.0), tl.load(p_sin + o_table, mask=m, other=0.0)
    p_first = p_x + o_t.to(tl.int64)[:, None] * s_x + (i_h * 2 * HALF + o_d)[None, :]
    b_first = tl.load(p_first, mask=m, other=0.0).to(tl.float32)
    b_second = tl.load(p_first + HALF, mask=m, other=0.0).to(tl.float32)
    tl.store(p_first, (b_first * b_cos - b_second * b_sin).to(p_x.dtype.element_ty), mask=m)
    tl.store(p_first + HALF, (b_second * b_cos + b_first * b_sin).to(p_x.dtype.element_ty), mask=m)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int) -> None:
    """Turn the first `heads` heads of each row of x [tokens, …], in place; tokens come in batches of seq_len, columns of x are adjacent.

    `cos`, `sin`: float32 [seq_len, head_dim / 2]; sums are in float32.
    """
    fixed, warps = constants(cos.shape[1])
    grid = (triton.cdiv(len(x), fixed["BT"]), heads)
    rotate_kernel[grid](x, cos, sin, len(x), len(cos), x.stride(0), **fixed, num_warps=warps)
