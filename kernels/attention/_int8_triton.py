"""The Triton kernels of attention over many queries with 8-bit scores; `_int8_launch` launches them. They need Triton to be imported.

SageAttention (Zhang et al., arXiv 2410.02367): keys lose their mean over tokens, which moves every score of a query alike, and become
8-bit integers with a scale for each block of BLOCK keys; a query is quantized in registers, with a scale of its own that holds the
factor of the scores, too. Their products are integers; weights × values stay in 16 bit. The walk over keys is that of the prefill kernel.
In comments: T queries, S keys, D head_dim; BT, BS, BD their tiles; D8: the width of a row of 8-bit keys, a multiple of 16.
"""
# ruff: noqa: N803, PLW2901
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from . import _int8_tiles
from ._prefill_triton import _place, _range, _tile, _visible
from ._triton_tanh import LOG2_E

BLOCK = tl.constexpr(_int8_tiles.BLOCK)
PARTS = tl.constexpr(_int8_tiles.PARTS)
PER_STEP = tl.constexpr(1 / _int8_tiles.STEPS)
LEAST = tl.constexpr(_int8_tiles.LEAST)
# added to a number it rounds it to the nearest whole one, ties to the even one, which then is what its lowest bits hold
MAGIC = tl.constexpr(1.5 * 2**23)


@triton.jit
def whole(b):
    """int8: float32 numbers from -127 to 127 rounded."""
    return (b + MAGIC).to(tl.int32, bitcast=True).to(tl.int8)


@triton.jit
def step_of(b_largest):
    """The size of a step where the largest magnitude is to come to 127 of them."""
    return tl.maximum(b_largest, LEAST) * PER_STEP


@triton.jit
def _length(p_lengths, i_b, S):
    length = S
    if p_lengths is not None:
        length = tl.minimum(tl.load(p_lengths + i_b), S)
    return length


@triton.jit(do_not_specialize=["S", "part"])
def int8_sums_kernel(
    p_k, p_sums, p_lengths, s_kb, s_kh, s_ks, s_kd, kv_heads, S, part, D: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr
):
    """Sums of the keys of one head, of its PARTS parts of so many tokens one: float32 [batch · kv_heads, PARTS, BD]."""
    i = tl.program_id(0) // PARTS
    i_part = tl.program_id(0) % PARTS
    i_b = i // kv_heads
    o_s = tl.arange(0, BS)
    o_d = tl.arange(0, BD)
    lo = i_part * part
    hi = tl.minimum(lo + part, _length(p_lengths, i_b, S))
    p_k += i_b.to(tl.int64) * s_kb + (i % kv_heads).to(tl.int64) * s_kh + (o_s[:, None] * s_ks + o_d[None, :] * s_kd)
    b_sum = tl.zeros([BS, BD], tl.float32)
    for i_s in range(lo, hi, BS):
        i_s = tl.multiple_of(i_s, BS)
        b_sum += tl.load(p_k + i_s.to(tl.int64) * s_ks, mask=(i_s + o_s < hi)[:, None] & (o_d < D)[None, :], other=0.0).to(tl.float32)
    tl.store(p_sums + tl.program_id(0).to(tl.int64) * BD + o_d, tl.sum(b_sum, 0))


@triton.jit(do_not_specialize=["S"])
def int8_keys_kernel(
    p_k, p_k8, p_steps, p_sums, p_lengths, s_kb, s_kh, s_ks, s_kd, kv_heads, S,
    D: tl.constexpr, D8: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """One block of keys less their mean: p_k8 int8 [batch · kv_heads, S, D8], p_steps float32 [batch · kv_heads, blocks].

    Keys past a row's length have no part in mean and step, and become 0.
    """
    blocks = tl.cdiv(S, BLOCK)
    i = tl.program_id(0) // blocks
    i_s = tl.program_id(0) % blocks * BLOCK
    i_b = i // kv_heads
    o_s = i_s + tl.arange(0, BLOCK)
    o_d = tl.arange(0, BD)
    length = _length(p_lengths, i_b, S)
    m = (o_s < length)[:, None] & (o_d < D)[None, :]
    # [PARTS, BD]
    b_sums = tl.load(p_sums + (i.to(tl.int64) * PARTS + tl.arange(0, PARTS))[:, None] * BD + o_d[None, :])
    b_mean = tl.sum(b_sums, 0) / tl.maximum(length, 1).to(tl.float32)
    p_k += i_b.to(tl.int64) * s_kb + (i % kv_heads).to(tl.int64) * s_kh
    b_k = tl.load(p_k + o_s.to(tl.int64)[:, None] * s_ks + o_d[None, :] * s_kd, mask=m, other=0.0).to(tl.float32)
    b_k = tl.where(m, b_k - b_mean[None, :], 0.0)
    step = step_of(tl.max(tl.max(tl.abs(b_k), 1), 0))
    p_k8 += (i.to(tl.int64) * S + o_s)[:, None] * D8 + o_d[None, :]
    tl.store(p_k8, whole(b_k * (1.0 / step)), mask=(o_s < S)[:, None] & (o_d < D8)[None, :])
    tl.store(p_steps + tl.program_id(0), step)


@triton.jit
def _through(
    b_acc, b_m, b_l, b_p, b_fade, b_q, b_step, t_k, t_v, p_k, p_v, p_steps, s_vs,
    i_b, i_h, lo, hi, o_t, m_k, m_d, length, window,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    D: tl.constexpr, D8: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, AHEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the keys from lo to hi, a multiple of BS apart, into the running maximum, sum and output of BT queries.

    With AHEAD the weights b_p and the fading b_fade of the last block are still to be applied, and so they are on return.
    """
    o_s = tl.arange(0, BS)
    for i_s in tl.range(lo, hi, BS):
        i_s = tl.multiple_of(i_s, BS)
        m_s = i_s + o_s < length
        # nobody waits for it: the product of q and k takes longer
        step = tl.load(p_steps + i_s // BLOCK)
        if AHEAD:
            b_a = b_p.to(p_v.dtype.element_ty)
        b_k = _tile(t_k, p_k, i_b, i_h, i_s, D8, m_s, m_k, BS, BD, 0, MASKED, BD == D8)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k.T, out_dtype=tl.int32).to(tl.float32)
        if AHEAD:
            # before the first block there is none: weights of 0 meet values that are there
            i_v = tl.maximum(i_s - BS, 0)
            b_acc = b_acc * b_fade[:, None]
            b_v = _tile(t_v, p_v, i_b, i_h, i_v, s_vs, i_v + o_s < length, m_d, BS, BD, 0, MASKED, BD == D)
            b_acc = tl.dot(b_a, b_v, b_acc, input_precision=PRECISION)
        # [BT]: what is left to multiply scores with before exp2
        factor = b_step * step
        if MASKED:
            b_s = tl.where(_visible(i_s, o_s, o_t, length, window, CAUSAL, WINDOW), b_s, float("-inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1) * factor)
        # a query that has seen no key yet keeps a finite pivot: its weights are exp2(-inf) = 0
        pivot = tl.where(b_m_new == float("-inf"), 0.0, b_m_new) if MASKED else b_m_new
        b_w = tl.exp2(b_s * factor[:, None] - pivot[:, None])
        b_fade = tl.exp2(b_m - pivot)
        if AHEAD:
            b_p = b_w
        else:
            b_acc = b_acc * b_fade[:, None]
            b_v = _tile(t_v, p_v, i_b, i_h, i_s, s_vs, m_s, m_d, BS, BD, 0, MASKED, BD == D)
            b_acc = tl.dot(b_w.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
        b_l = b_l * b_fade + tl.sum(b_w, 1)
        b_m = b_m_new
    return b_acc, b_m, b_l, b_p, b_fade


@triton.jit(do_not_specialize=["T", "S", "window", "TOTAL", "TOGETHER"])
def int8_prefill_kernel(
    p_q, p_k8, p_v, p_o, p_steps, p_lengths, t_k, t_v, t_o,
    s_qb, s_qh, s_qt, s_qd, s_vb, s_vh, s_vs, s_vd, H, T, S, TOTAL, TOGETHER, window, scale,
    G: tl.constexpr, D: tl.constexpr, D8: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, WINDOW: tl.constexpr,
    AHEAD: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Program i computes tile i. LENGTHS: 0 none, 1 of padded rows, 2 of ragged rows. Descriptors t are None where pointers are used."""
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
    i_kv = at_b * (H // G) + i_g
    o_row = tl.arange(0, BT)
    o_s = tl.arange(0, BS)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    m_k = o_d < D8
    m_t = i_t * BT + o_row < T
    i_q = i_t * BT
    o_t = i_q + o_row + past
    b_p_q = p_q + at_b * s_qb + i_h.to(tl.int64) * s_qh + (o_row[:, None] * s_qt + o_d[None, :] * s_qd)
    b_p_k = p_k8 + i_kv * S * D8 + (o_s[:, None] * D8 + o_d[None, :])
    b_p_v = p_v + at_b * s_vb + i_g.to(tl.int64) * s_vh + (o_s[:, None] * s_vs + o_d[None, :] * s_vd)
    p_steps += i_kv * tl.cdiv(S, BLOCK)
    # [BT, BD]
    b_x = _tile(None, b_p_q, i_b, i_h, i_q, s_qt, m_t, m_d, BT, BD, 0, True, False).to(tl.float32)
    b_step = step_of(tl.max(tl.abs(b_x), 1))
    b_q = whole(b_x * (1.0 / b_step)[:, None])
    b_step = b_step * (scale * LOG2_E)

    lo, whole_lo, whole_hi, hi = _range(i_t, length, past, window, CAUSAL, WINDOW, BT, BS)
    b_acc = tl.zeros([BT, BD], tl.float32)
    b_m = tl.full([BT], float("-inf"), tl.float32)
    b_l = tl.zeros([BT], tl.float32)
    b_p = tl.zeros([BT, BS], tl.float32)
    b_fade = tl.zeros([BT], tl.float32) + 1.0
    if WINDOW:
        b_acc, b_m, b_l, b_p, b_fade = _through(
            b_acc, b_m, b_l, b_p, b_fade, b_q, b_step, t_k, t_v, b_p_k, b_p_v, p_steps, s_vs,
            i_b, i_g, lo, tl.minimum(whole_lo, hi), o_t, m_k, m_d, length, window,
            MASKED=True, CAUSAL=CAUSAL, WINDOW=WINDOW, D=D, D8=D8, BS=BS, BD=BD, AHEAD=AHEAD, PRECISION=PRECISION,
        )  # fmt: skip
    b_acc, b_m, b_l, b_p, b_fade = _through(
        b_acc, b_m, b_l, b_p, b_fade, b_q, b_step, t_k, t_v, b_p_k, b_p_v, p_steps, s_vs,
        i_b, i_g, whole_lo, whole_hi, o_t, m_k, m_d, length, window,
        MASKED=False, CAUSAL=CAUSAL, WINDOW=WINDOW, D=D, D8=D8, BS=BS, BD=BD, AHEAD=AHEAD, PRECISION=PRECISION,
    )  # fmt: skip
    b_acc, b_m, b_l, b_p, b_fade = _through(
        b_acc, b_m, b_l, b_p, b_fade, b_q, b_step, t_k, t_v, b_p_k, b_p_v, p_steps, s_vs,
        i_b, i_g, whole_hi, hi, o_t, m_k, m_d, length, window,
        MASKED=True, CAUSAL=CAUSAL, WINDOW=WINDOW, D=D, D8=D8, BS=BS, BD=BD, AHEAD=AHEAD, PRECISION=PRECISION,
    )  # fmt: skip
    if AHEAD:
        i_v = tl.maximum((hi - 1) // BS * BS, 0)
        b_acc = b_acc * b_fade[:, None]
        b_v = _tile(t_v, b_p_v, i_b, i_g, i_v, s_vs, i_v + o_s < length, m_d, BS, BD, 0, True, False)
        b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
    b_o = (b_acc * (1.0 / tl.where(b_l == 0.0, 1.0, b_l))[:, None]).to(p_o.dtype.element_ty)
    # the output is contiguous
    if t_o is not None:
        t_o.store([i_b, i_h, i_q, 0], b_o.reshape(1, 1, BT, BD))
    else:
        b_p_o = p_o + ((i_b * H + i_h).to(tl.int64) * T + i_q) * D + o_row[:, None] * D + o_d[None, :]
        tl.store(b_p_o, b_o, mask=m_t[:, None] & m_d[None, :])
