"""Triton kernels for 8-bit weights: quantizing tokens behind their norm, and a linear layer with everything around it in its epilogue.

In comments: T tokens, K inputs, N outputs of a layer; BT, BK, BN their tiles; W: bytes of a row of 8-bit weights, a multiple of 128.
"""
# ruff: noqa: N803, SIM108
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from ._fused_triton import activated

PER_STEP = tl.constexpr(1 / 127)
LEAST = tl.constexpr(1e-30)
# added to a number it rounds it to the nearest whole one, ties to the even one, which then is what its lowest bits hold
MAGIC = tl.constexpr(1.5 * 2**23)


@triton.jit
def quantize_kernel(p_x, p_w, p_b, p_q, p_s, s_x, D, W, eps, CENTRED: tl.constexpr, BD: tl.constexpr):
    """One token in 8 bit, with a step of its own: q int8 [T, W], of which columns from D on are 0, and s float32 [T].

    Before that LayerNorm when CENTRED, RMSNorm where there is p_w alone, no norm where that is None; statistics in float32.
    """
    i_t = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    # [BD]
    b_x = tl.load(p_x + i_t * s_x + o_d, mask=m_d, other=0.0).to(tl.float32)
    if CENTRED:
        b_x = tl.where(m_d, b_x - tl.sum(b_x, axis=0) / D, 0.0)
    if p_w is not None:
        b_w = tl.load(p_w + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_x = b_x * (b_w / tl.sqrt(tl.sum(b_x * b_x, axis=0) / D + eps))
    if CENTRED:
        b_x += tl.load(p_b + o_d, mask=m_d, other=0.0).to(tl.float32)
    step = tl.maximum(tl.max(tl.abs(b_x), axis=0) * PER_STEP, LEAST)
    b_q = (b_x * (1.0 / step) + MAGIC).to(tl.int32, bitcast=True).to(tl.int8)
    tl.store(p_q + i_t * W + o_d, b_q, mask=o_d < W)
    tl.store(p_s + i_t, step)


@triton.jit
def _add(b_sum, b_x, b_w, INTEGERS: tl.constexpr):
    """b_sum + x w; 8-bit w is widened to an x that is floating point."""
    if INTEGERS:
        b_sum = tl.dot(b_x, b_w, b_sum, out_dtype=tl.int32)
    else:
        b_sum = tl.dot(b_x, b_w.to(b_x.dtype), b_sum, input_precision="ieee")
    return b_sum


@triton.jit
def _products(
    p_x, p_w, p_g, t_x, t_w, t_g, at_t, at_n, o_t, o_n, K, W, s_x,
    INTEGERS: tl.constexpr, EVEN: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """[BT, BN]: x wᵀ and x gᵀ from row at_t and output at_n on, by descriptors or, where those are None, by pointers to there."""
    o_k = tl.arange(0, BK)
    p_xk = p_x + o_t[:, None] * s_x + o_k[None, :]
    w_offset = o_n[None, :] * W + o_k[:, None]
    b_y = tl.zeros([BT, BN], tl.int32 if INTEGERS else tl.float32)
    b_g = tl.zeros([BT, BN], tl.int32 if INTEGERS else tl.float32)
    for k in range(0, K, BK):
        # [BT, BK], [BK, BN]
        if t_x is not None:
            b_x = t_x.load([at_t, k])
            b_w = t_w.load([at_n, k]).T
        else:
            if EVEN:
                b_x = tl.load(p_xk)
            else:
                # where x ends there are zeros, whatever w holds
                b_x = tl.load(p_xk, mask=o_k[None, :] < K - k, other=0.0)
            b_w = tl.load(p_w + w_offset)
        b_y = _add(b_y, b_x, b_w, INTEGERS)
        if p_g is not None:
            if t_g is not None:
                b_w = t_g.load([at_n, k]).T
            else:
                b_w = tl.load(p_g + w_offset)
            b_g = _add(b_g, b_x, b_w, INTEGERS)
            p_g += BK
        p_xk += BK
        p_w += BK
    return b_y, b_g


@triton.jit
def _scaled(b_sum, b_sx, p_s, p_b, o_n, m_n):
    """float32: sums times the steps of tokens and of outputs, plus biases."""
    b_y = b_sum.to(tl.float32) * b_sx[:, None] * tl.load(p_s + o_n, mask=m_n, other=0.0)[None, :]
    if p_b is not None:
        b_y += tl.load(p_b + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]
    return b_y


@triton.jit
def linear_int8_kernel(
    p_x, p_sx, p_w, p_sw, p_g, p_sg, p_b, p_bg, p_r, p_y, t_x, t_w, t_g, T, K, N, W, s_x, s_r,
    ACTIVATION: tl.constexpr, EVEN: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """y = act(x wᵀ + b) + r, or act(x gᵀ + bg) · (x wᵀ + b) + r; pointers that are None leave their part out.

    w and g int8 [N, W] with a step sw and sg for each output. With p_sx, a step for each token, x is int8 and products are integers;
    without it x is floating point [T, K], and weights are widened to it. Rows of x are s_x apart, those of r [T, N] s_r; y [T, N].
    EVEN: K is a multiple of BK. t_x, t_w, t_g: descriptors of the same matrices, or None.
    """
    # programs of GROUP neighbouring row blocks go through the column blocks together: they share w in the L2 cache
    n_t, n_n = tl.cdiv(T, BT), tl.cdiv(N, BN)
    i = tl.program_id(0)
    first = i // (GROUP * n_n) * GROUP
    size = tl.minimum(n_t - first, GROUP)
    at_t, at_n = (first + i % (GROUP * n_n) % size) * BT, i % (GROUP * n_n) // size * BN
    o_row, o_column = tl.arange(0, BT), tl.arange(0, BN)
    m_t, m_n = at_t + o_row < T, at_n + o_column < N
    # rows and columns past the end read the last one instead, and are not stored: no masks in the loop
    o_t, o_n = tl.minimum(o_row, T - 1 - at_t), tl.minimum(o_column, N - 1 - at_n)
    # tiles are addressed by 32-bit offsets from where they begin
    from_t, from_n = at_t.to(tl.int64), at_n.to(tl.int64)
    p_g_n = p_g
    if p_g is not None:
        p_g_n = p_g + from_n * W
    b_y, b_g = _products(
        p_x + from_t * s_x, p_w + from_n * W, p_g_n, t_x, t_w, t_g, at_t, at_n, o_t, o_n, K, W, s_x,
        INTEGERS=p_sx is not None, EVEN=EVEN, BT=BT, BN=BN, BK=BK,
    )  # fmt: skip
    b_sx = tl.full([BT], 1.0, tl.float32)
    if p_sx is not None:
        b_sx = tl.load(p_sx + at_t + o_row, mask=m_t, other=0.0)
    b_y = _scaled(b_y, b_sx, p_sw, p_b, at_n + o_column, m_n)
    if p_g is not None:
        b_y = activated(_scaled(b_g, b_sx, p_sg, p_bg, at_n + o_column, m_n), ACTIVATION) * b_y
    else:
        b_y = activated(b_y, ACTIVATION)
    m_y = m_t[:, None] & m_n[None, :]
    if p_r is not None:
        # [BT, BN]
        p_r += from_t * s_r + from_n
        b_y += tl.load(p_r + (o_row[:, None] * s_r + o_column[None, :]), mask=m_y, other=0.0).to(tl.float32)
    p_y += from_t * N + from_n
    tl.store(p_y + (o_row[:, None] * N + o_column[None, :]), b_y.to(p_y.dtype.element_ty), mask=m_y)
