"""The Triton kernels of attention's backward direction; `_backward_launch` launches them. It needs Triton to be imported.

The algorithm is FlashAttention-2's (Dao, arXiv 2307.08691, algorithm 2): probabilities are computed again from the logarithms of their
sums, which the forward pass leaves. `keys_kernel` holds the gradients of BS keys and values while it goes through the queries that see
them, with scores transposed, so that weights pass from registers into the products. The gradient of the queries is added up in memory
on the way (ONCE: five products for each pair of tiles), or computed by `queries_kernel`, which repeats two products and writes every
number once, always in the same order. In comments: T queries, S keys, D head_dim; BT, BS, BD their tiles.
"""
# ruff: noqa: N803, PLW2901
# mypy: disable-error-code="no-untyped-def, untyped-decorator, union-attr"

from __future__ import annotations

import triton
import triton.language as tl

from . import _backward_tiles, _prefill_tiles
from ._prefill_triton import _range, _tile, _visible
from ._triton_tanh import LOG2_E, tanh

# the interpreter runs plain Python as it stands
_place = _prefill_tiles.place if triton.knobs.runtime.interpret else triton.jit(_prefill_tiles.place)
_seers = _backward_tiles.seers if triton.knobs.runtime.interpret else triton.jit(_backward_tiles.seers)


@triton.jit(do_not_specialize=["T", "ROOM"])
def delta_kernel(
    p_o, p_g, p_lse, p_rows, s_gb, s_gh, s_gt, s_gd, H, T, ROOM,
    D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What the gradients of a row of scores have in common: delta, the sum of output times its gradient, for BT queries of one head.

    rows is [batch · H, 2, ROOM], in whole tiles, so that nobody has to mask them: the natural logarithms lse as ones of base 2, +inf past
    the last query and for one that sees no key, which then weighs nothing; and the deltas. o is contiguous, its gradient g has any strides.
    """
    # one axis: the others end at 65535 programs
    blocks = tl.cdiv(ROOM, BT)
    head = tl.program_id(0) // blocks
    o_t = tl.program_id(0) % blocks * BT + tl.arange(0, BT)
    o_d = tl.arange(0, BD)
    m_t = o_t < T
    m = m_t[:, None] & (o_d < D)[None, :]
    at = head.to(tl.int64) * T
    # [BT, BD]
    b_o = tl.load(p_o + (at + o_t)[:, None] * D + o_d[None, :], mask=m, other=0.0).to(tl.float32)
    b_p_g = p_g + (head // H).to(tl.int64) * s_gb + (head % H).to(tl.int64) * s_gh + o_t.to(tl.int64)[:, None] * s_gt
    b_g = tl.load(b_p_g + o_d[None, :] * s_gd, mask=m, other=0.0).to(tl.float32)
    b_lse = tl.load(p_lse + at + o_t, mask=m_t, other=float("-inf"))
    b_p_r = p_rows + head.to(tl.int64) * (2 * ROOM) + o_t
    tl.store(b_p_r, tl.where(b_lse == float("-inf"), float("inf"), b_lse * LOG2_E), mask=o_t < ROOM)
    tl.store(b_p_r + ROOM, tl.sum(b_o * b_g, 1), mask=o_t < ROOM)


@triton.jit
def _scored(b_s, b_x, scale, cap, SOFTCAP: tl.constexpr, BIAS: tl.constexpr, EXACT: tl.constexpr):
    """(scores, what makes base-2 logarithms of weights of them, slope of the softcap) from products of queries and keys.

    The factor is left for after the mask, where multiplying and taking off the logarithm of the sum are one instruction.
    """
    b_slope = 1.0
    factor = scale
    if SOFTCAP:
        b_s = tanh(b_s * scale, EXACT)
        b_slope = 1.0 - b_s * b_s
        factor = cap
    if BIAS == 1:
        b_s = b_s * factor + b_x.to(tl.float32) * LOG2_E
        factor = 1.0
    if BIAS == 2:
        b_s = tl.where(b_x != 0, b_s, float("-inf"))
    return b_s, factor, b_slope


@triton.jit
def _bounds(o_t, length, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """(first, end) of the keys that the queries at these positions see."""
    first = o_t * 0
    end = first + length
    if CAUSAL:
        end = tl.minimum(end, o_t + 1)
    if WINDOW:
        first = o_t - window + 1
        if not CAUSAL:
            end = tl.minimum(end, o_t + window)
    return first, end


@triton.jit
def _through_queries(
    b_dk, b_dv, b_k, b_v, t_q, t_g, t_dq, p_q, p_g, p_dq, p_rows, p_bias, s_qt, s_gt, s_xt,
    i_b, i_h, lo, whole, until, hi, i_s, o_s, m_d, T, ROOM, past, length, window, scale, cap,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, BIAS: tl.constexpr, ONCE: tl.constexpr,
    D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the queries from lo to hi, a multiple of BT apart, into the gradients of BS keys and values; those in [whole, until) see all.

    One loop, with a branch around the mask: between loops ptxas would have to move accumulators that products are still being added
    to, and therefore makes every product wait for the one before (its note C7515).
    """
    o_t = tl.arange(0, BT)
    for i_t in tl.range(lo, hi, BT):
        i_t = tl.multiple_of(i_t, BT)
        m_t = i_t + o_t < T
        # [BT, BD]
        b_q = _tile(t_q, p_q, i_b, i_h, i_t, s_qt, m_t, m_d, BT, BD, 0, True, False)
        b_lse = tl.load(p_rows + i_t + o_t)
        # [BS, BT]
        b_s = tl.dot(b_k, b_q.T, input_precision=PRECISION)
        b_g = _tile(t_g, p_g, i_b, i_h, i_t, s_gt, m_t, m_d, BT, BD, 0, True, False)
        b_dp = tl.dot(b_v, b_g.T, input_precision=PRECISION)
        b_x = 0
        if BIAS != 0:
            m_x = (i_s + o_s < length)[:, None] & m_t[None, :]
            b_x = tl.load(p_bias + (i_t + o_t).to(tl.int64)[None, :] * s_xt, mask=m_x, other=0)
        b_s, factor, b_slope = _scored(b_s, b_x, scale, cap, SOFTCAP, BIAS, b_k.dtype == tl.float32)
        if (i_t < whole) | (i_t >= until):
            first, end = _bounds(i_t + o_t + past, length, window, CAUSAL, WINDOW)
            b_s = tl.where((i_s + o_s)[:, None] < end[None, :], b_s, float("-inf"))
            if WINDOW:
                b_s = tl.where((i_s + o_s)[:, None] >= first[None, :], b_s, float("-inf"))
        b_p = tl.exp2(b_s * factor - b_lse[None, :])
        b_dv = tl.dot(b_p.to(b_g.dtype), b_g, b_dv, input_precision=PRECISION)
        b_delta = tl.load(p_rows + ROOM + i_t + o_t)
        b_ds = (b_p * (b_dp - b_delta[None, :]) * b_slope).to(b_q.dtype)
        b_dk = tl.dot(b_ds, b_q, b_dk, input_precision=PRECISION)
        if ONCE:
            # last of all: what is waited for at once must not stand before products that may run on into the next round
            b_dq = tl.dot(b_ds.T, b_k, input_precision=PRECISION)
            if t_dq is not None:
                t_dq.atomic_add([i_b, i_h, i_t, 0], b_dq.reshape(1, 1, BT, BD))
            else:
                tl.atomic_add(p_dq + i_t.to(tl.int64) * D, b_dq, mask=m_t[:, None] & m_d[None, :], sem="relaxed")
    return b_dk, b_dv


@triton.jit(do_not_specialize=["T", "S", "window", "TOTAL", "TOGETHER"])
def keys_kernel(
    p_q, p_k, p_v, p_g, p_dq, p_dk, p_dv, p_rows, p_lengths, p_bias, t_q, t_k, t_v, t_g, t_dq,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_gb, s_gh, s_gt, s_gd, s_xb, s_xh, s_xt, s_xs,
    H, T, S, ROOM, TOTAL, TOGETHER, window, scale, cap, factor,
    G: tl.constexpr, SHARES: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, BIAS: tl.constexpr, ONCE: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradients of BS keys and values of one head, from G query heads: the whole of a group, or one of SHARES of it.

    dk and dv are contiguous [batch, H / G, S, D]; with ONCE dq is float32 [batch, H, T, D], and is added to. TOTAL: batch · H / G.
    LENGTHS, BIAS, `scale` and `cap` are as for `prefill_kernel`; dk is multiplied with `factor`.
    """
    head, i_s = _place(tl.program_id(0), tl.cdiv(S, BS), TOTAL, TOGETHER, False)
    i_s = i_s * BS
    shares = H // G
    i_b = head // shares
    i_g = head % shares // SHARES
    past = S - T
    length = S
    if LENGTHS:
        length = tl.minimum(tl.load(p_lengths + i_b), S)
        if LENGTHS == 2:
            past = length - T
    at_b = i_b.to(tl.int64)
    o_s = tl.arange(0, BS)
    o_t = tl.arange(0, BT)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    m_s = i_s + o_s < S
    b_p_k = p_k + at_b * s_kb + i_g.to(tl.int64) * s_kh + (o_s[:, None] * s_ks + o_d[None, :] * s_kd)
    b_p_v = p_v + at_b * s_vb + i_g.to(tl.int64) * s_vh + (o_s[:, None] * s_vs + o_d[None, :] * s_vd)
    # [BS, BD]
    b_k = _tile(t_k, b_p_k, i_b, i_g, i_s, s_ks, i_s + o_s < length, m_d, BS, BD, 0, True, False)
    b_v = _tile(t_v, b_p_v, i_b, i_g, i_s, s_vs, i_s + o_s < length, m_d, BS, BD, 0, True, False)
    b_dk = tl.zeros([BS, BD], tl.float32)
    b_dv = tl.zeros([BS, BD], tl.float32)
    lo, whole, until, hi = _seers(i_s, BS, BT, T, past, length, window, CAUSAL, WINDOW)
    # where a loop may be skipped, ptxas moves accumulators around it, and lets no product begin before the last one has ended (C7515)
    tl.assume(lo < hi)
    for i in range(G):
        i_h = head % shares * G + i
        room = (i_b * H + i_h).to(tl.int64) * (2 * ROOM)
        b_p_q = p_q + at_b * s_qb + i_h.to(tl.int64) * s_qh + (o_t[:, None] * s_qt + o_d[None, :] * s_qd)
        b_p_g = p_g + at_b * s_gb + i_h.to(tl.int64) * s_gh + (o_t[:, None] * s_gt + o_d[None, :] * s_gd)
        b_p_dq = p_dq
        if ONCE and t_dq is None:
            b_p_dq = p_dq + (i_b * H + i_h).to(tl.int64) * T * D + (o_t[:, None] * D + o_d[None, :])
        b_p_x = p_bias
        if BIAS != 0:
            b_p_x = p_bias + at_b * s_xb + i_h.to(tl.int64) * s_xh + (i_s + o_s).to(tl.int64)[:, None] * s_xs
        b_dk, b_dv = _through_queries(
            b_dk, b_dv, b_k, b_v, t_q, t_g, t_dq, b_p_q, b_p_g, b_p_dq, p_rows + room, b_p_x, s_qt, s_gt, s_xt,
            i_b, i_h, lo, whole, until, hi, i_s, o_s, m_d, T, ROOM, past, length, window, scale, cap,
            CAUSAL=CAUSAL, WINDOW=WINDOW, SOFTCAP=SOFTCAP, BIAS=BIAS, ONCE=ONCE, D=D, BT=BT, BD=BD, PRECISION=PRECISION,
        )  # fmt: skip
    to = (head.to(tl.int64) * S + i_s) * D + (o_s[:, None] * D + o_d[None, :])
    m = m_s[:, None] & m_d[None, :]
    tl.store(p_dk + to, (b_dk * factor).to(p_dk.dtype.element_ty), mask=m)
    tl.store(p_dv + to, b_dv.to(p_dv.dtype.element_ty), mask=m)


@triton.jit
def _through_keys(
    b_dq, b_q, b_g, b_lse, b_delta, t_k, t_v, p_k, p_v, p_bias, s_ks, s_vs, s_xs,
    i_b, i_h, lo, whole, until, hi, o_t, m_t, m_d, length, window, scale, cap,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, BIAS: tl.constexpr,
    BS: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the keys from lo to hi, a multiple of BS apart, into the gradient of BT queries, which all see those in [whole, until)."""
    o_s = tl.arange(0, BS)
    for i_s in tl.range(lo, hi, BS):
        i_s = tl.multiple_of(i_s, BS)
        m_s = i_s + o_s < length
        # [BS, BD]
        b_k = _tile(t_k, p_k, i_b, i_h, i_s, s_ks, m_s, m_d, BS, BD, 0, True, False)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
        b_v = _tile(t_v, p_v, i_b, i_h, i_s, s_vs, m_s, m_d, BS, BD, 0, True, False)
        b_dp = tl.dot(b_g, b_v.T, input_precision=PRECISION)
        b_x = 0
        if BIAS != 0:
            b_x = tl.load(p_bias + (i_s + o_s).to(tl.int64)[None, :] * s_xs, mask=m_t[:, None] & m_s[None, :], other=0)
        b_s, factor, b_slope = _scored(b_s, b_x, scale, cap, SOFTCAP, BIAS, b_k.dtype == tl.float32)
        if (i_s < whole) | (i_s >= until):
            b_s = tl.where(_visible(i_s, o_s, o_t, length, window, CAUSAL, WINDOW), b_s, float("-inf"))
        b_p = tl.exp2(b_s * factor - b_lse[:, None])
        b_ds = (b_p * (b_dp - b_delta[:, None]) * b_slope).to(b_k.dtype)
        b_dq = tl.dot(b_ds, b_k, b_dq, input_precision=PRECISION)
    return b_dq


@triton.jit(do_not_specialize=["T", "S", "window", "TOTAL", "TOGETHER"])
def queries_kernel(
    p_q, p_k, p_v, p_g, p_dq, p_rows, p_lengths, p_bias, t_q, t_k, t_v, t_g,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_gb, s_gh, s_gt, s_gd, s_xb, s_xh, s_xt, s_xs,
    H, T, S, ROOM, TOTAL, TOGETHER, window, scale, cap, factor,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient of BT queries of one head, times `factor`, into the contiguous dq [batch, H, T, D]. TOTAL: batch · H."""
    head, i_t = _place(tl.program_id(0), tl.cdiv(T, BT), TOTAL, TOGETHER, CAUSAL)
    i_b = head // H
    i_h = head % H
    i_g = i_h // G
    past = S - T
    length = S
    if LENGTHS:
        length = tl.minimum(tl.load(p_lengths + i_b), S)
        if LENGTHS == 2:
            past = length - T
    at_b = i_b.to(tl.int64)
    i_q = i_t * BT
    o_row = tl.arange(0, BT)
    o_s = tl.arange(0, BS)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    m_t = i_q + o_row < T
    b_p_q = p_q + at_b * s_qb + i_h.to(tl.int64) * s_qh + (o_row[:, None] * s_qt + o_d[None, :] * s_qd)
    b_p_g = p_g + at_b * s_gb + i_h.to(tl.int64) * s_gh + (o_row[:, None] * s_gt + o_d[None, :] * s_gd)
    b_p_k = p_k + at_b * s_kb + i_g.to(tl.int64) * s_kh + (o_s[:, None] * s_ks + o_d[None, :] * s_kd)
    b_p_v = p_v + at_b * s_vb + i_g.to(tl.int64) * s_vh + (o_s[:, None] * s_vs + o_d[None, :] * s_vd)
    b_p_x = p_bias
    if BIAS != 0:
        b_p_x = p_bias + at_b * s_xb + i_h.to(tl.int64) * s_xh + (i_q + o_row).to(tl.int64)[:, None] * s_xt
    # [BT, BD]
    b_q = _tile(t_q, b_p_q, i_b, i_h, i_q, s_qt, m_t, m_d, BT, BD, 0, True, False)
    b_g = _tile(t_g, b_p_g, i_b, i_h, i_q, s_gt, m_t, m_d, BT, BD, 0, True, False)
    at = head.to(tl.int64) * T + i_q
    room = head.to(tl.int64) * (2 * ROOM) + i_q
    b_lse = tl.load(p_rows + room + o_row)
    b_delta = tl.load(p_rows + room + ROOM + o_row)
    b_dq = tl.zeros([BT, BD], tl.float32)
    lo, whole, until, hi = _range(i_t, length, past, window, CAUSAL, WINDOW, BT, BS)
    # a loop that is not skipped, as in `keys_kernel`: where nobody sees a key, its only tile is masked, since `until` is at most `lo`
    hi = tl.maximum(hi, lo + 1)
    tl.assume(lo < hi)
    o_t = i_q + o_row + past
    b_dq = _through_keys(
        b_dq, b_q, b_g, b_lse, b_delta, t_k, t_v, b_p_k, b_p_v, b_p_x, s_ks, s_vs, s_xs,
        i_b, i_g, lo, whole, until, hi, o_t, m_t, m_d, length, window, scale, cap,
        CAUSAL=CAUSAL, WINDOW=WINDOW, SOFTCAP=SOFTCAP, BIAS=BIAS, BS=BS, BD=BD, PRECISION=PRECISION,
    )  # fmt: skip
    b_p_dq = p_dq + at * D + (o_row[:, None] * D + o_d[None, :])
    tl.store(b_p_dq, (b_dq * factor).to(p_dq.dtype.element_ty), mask=m_t[:, None] & m_d[None, :])
