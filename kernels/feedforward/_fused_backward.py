"""Triton kernels of the backward pass around the matrix products, which are PyTorch's: of the activation and gate, and of the norm.

In comments: T tokens, N hidden neurons, D numbers of a token; BT, BN, BD their tiles. `_fused_gradients` launches them.
"""

# Triton's dialect: arguments without types, constants in capitals, branches that are decided while compiling
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from ._fused_linear import activated


@triton.jit
def slope(b, ACTIVATION: tl.constexpr):
    """The derivative of the activation function at a float32 tile."""
    if ACTIVATION == "relu":
        b = tl.where(b > 0, 1.0, 0.0)
    elif ACTIVATION == "gelu":
        b = 0.5 * (1.0 + tl.erf(b * 0.7071067811865476)) + b * 0.3989422804014327 * tl.exp(-0.5 * b * b)
    elif ACTIVATION == "gelu_tanh":
        b_s = tl.sigmoid(1.5957691216057308 * (b + 0.044715 * b * b * b))
        b = b_s + b * b_s * (1.0 - b_s) * 1.5957691216057308 * (1.0 + 0.134145 * b * b)
    elif ACTIVATION == "silu":
        b_s = tl.sigmoid(b)
        b = b_s + b * b_s * (1.0 - b_s)
    return b


@triton.jit
def _note(b, p, p_sums, at, m, i_t, o_n, N):
    """Store a gradient [BT, BN], and the sums of its columns where a bias wants them; they are of what was stored."""
    b = tl.where(m, b, 0.0).to(p.dtype.element_ty)
    tl.store(p + at, b, mask=m)
    if p_sums is not None:
        tl.store(p_sums + i_t.to(tl.int64) * N + o_n, tl.sum(b.to(tl.float32), axis=0), mask=o_n < N)


@triton.jit
def activation_gradient_kernel(
    p_da, p_h, p_du, p_dg, p_bu, p_bg, T, N, ACTIVATION: tl.constexpr, GATED: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """From the gradient da [T, N] of the activated neurons to that of what came before: du, and of the gate dg, both [T, N].

    h is what came before: [T, N], or [T, 2 N] with the gate's in every second column. bu, bg float32 [blocks of tokens, N] receive sums
    over tokens; None: nobody wants them.
    """
    i_t, i_n = tl.program_id(0), tl.program_id(1)
    o_t, o_n = i_t * BT + tl.arange(0, BT), i_n * BN + tl.arange(0, BN)
    m = (o_t < T)[:, None] & (o_n < N)[None, :]
    at = o_t.to(tl.int64)[:, None] * N + o_n[None, :]
    # [BT, BN]
    b_da = tl.load(p_da + at, mask=m, other=0.0).to(tl.float32)
    if GATED:
        o_h = i_n * 2 * BN + tl.arange(0, 2 * BN)
        m_h = (o_t < T)[:, None] & (o_h < 2 * N)[None, :]
        b_h = tl.load(p_h + o_t.to(tl.int64)[:, None] * (2 * N) + o_h[None, :], mask=m_h, other=0.0).to(tl.float32)
        b_u, b_g = tl.split(tl.reshape(b_h, [BT, BN, 2]))
        _note(b_da * b_u * slope(b_g, ACTIVATION), p_dg, p_bg, at, m, i_t, o_n, N)
        _note(b_da * activated(b_g, ACTIVATION), p_du, p_bu, at, m, i_t, o_n, N)
    else:
        b_u = tl.load(p_h + at, mask=m, other=0.0).to(tl.float32)
        _note(b_da * slope(b_u, ACTIVATION), p_du, p_bu, at, m, i_t, o_n, N)


@triton.jit
def norm_gradient_kernel(
    p_x, p_w, p_dy, p_r, p_dx, p_dw, p_db, s_x, s_r, T, D, eps, CENTRED: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """dx = the gradient of x from dy, that of norm(x), plus r; every n-th token of all in each of n programs.

    x [T, D] with rows s_x apart, dy and dx [T, D], r [T, D] with rows s_r apart, or None. dw and, when CENTRED, db float32
    [programs, D] receive sums over the tokens of each program.
    """
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    # [BD]
    b_w = tl.load(p_w + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_dw = tl.zeros([BD], dtype=tl.float32)
    b_db = tl.zeros([BD], dtype=tl.float32)
    i_t = tl.program_id(0).to(tl.int64)
    for _ in range(tl.program_id(0), T, tl.num_programs(0)):
        b_x = tl.load(p_x + i_t * s_x + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_dy = tl.load(p_dy + i_t * D + o_d, mask=m_d, other=0.0).to(tl.float32)
        if CENTRED:
            b_x = tl.where(m_d, b_x - tl.sum(b_x, axis=0) / D, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(b_x * b_x, axis=0) / D + eps)
        b_x *= scale
        b_dw += b_dy * b_x
        b_dh = b_dy * b_w
        b_dx = b_dh - b_x * (tl.sum(b_dh * b_x, axis=0) / D)
        if CENTRED:
            b_db += b_dy
            b_dx -= tl.sum(b_dh, axis=0) / D
        b_dx *= scale
        if p_r is not None:
            b_dx += tl.load(p_r + i_t * s_r + o_d, mask=m_d, other=0.0).to(tl.float32)
        tl.store(p_dx + i_t * D + o_d, b_dx.to(p_dx.dtype.element_ty), mask=m_d)
        i_t += tl.num_programs(0)
    at = tl.program_id(0).to(tl.int64) * D + o_d
    tl.store(p_dw + at, b_dw, mask=m_d)
    if CENTRED:
        tl.store(p_db + at, b_db, mask=m_d)
