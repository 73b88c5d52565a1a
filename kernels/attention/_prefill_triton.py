"""The Triton kernel of attention over many queries; `_prefill_launch` launches it. It needs Triton to be imported.

One program computes BT queries of one head against all keys that they see, with the online softmax of FlashAttention-2
(Dao, arXiv 2307.08691) in base 2. With AHEAD the product of a block's weights and values is begun one round later, beside the next
block's softmax (FlashAttention-3, arXiv 2407.08608, section 3.2), so that tensor cores and exponentials work at the same time.
In comments: T queries, S keys, D head_dim; BT, BS, BD and BD2 their tiles: head_dim is cut into one or two powers of two.
"""
# ruff: noqa: N803, PLW2901, C901, PLR0912, PLR0915
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from . import _prefill_tiles
from ._triton_tanh import LN_2, LOG2_E, tanh

# the interpreter runs plain Python as it stands
_place = _prefill_tiles.place if triton.knobs.runtime.interpret else triton.jit(_prefill_tiles.place)


@triton.jit
def _tile(
    t, p, i_b, i_h, i_s, s_s, m_s, m_d,
    BS: tl.constexpr, BD: tl.constexpr, FROM: tl.constexpr, MASKED: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """[BS, BD]: rows of q, k or v from i_s on, columns from FROM on, by descriptor t or, where it is None, by pointers p [BS, BD]."""
    if t is not None:
        b = t.load([i_b, i_h, i_s, FROM]).reshape(BS, BD)
    elif MASKED:
        b = tl.load(p + i_s.to(tl.int64) * s_s, mask=m_s[:, None] & m_d[None, :], other=0.0)
    elif EVEN:
        b = tl.load(p + i_s.to(tl.int64) * s_s)
    else:
        b = tl.load(p + i_s.to(tl.int64) * s_s, mask=m_d[None, :], other=0.0)
    return b


@triton.jit
def _visible(i_s, o_s, o_t, length, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """bool [BT, BS]: the keys of a block that each query sees from its position."""
    key = i_s + o_s
    visible = (key < length)[None, :]
    if CAUSAL:
        visible = visible & (key[None, :] <= o_t[:, None])
    if WINDOW:
        visible = visible & (key[None, :] > o_t[:, None] - window)
        if not CAUSAL:
            visible = visible & (key[None, :] < o_t[:, None] + window)
    return visible


@triton.jit
def _through(
    b_acc, b_acc2, b_m, b_l, b_p, b_fade, b_q, b_q2, t_k, t_k2, t_v, t_v2, p_k, p_k2, p_v, p_v2, p_bias, s_ks, s_vs, s_xs,
    i_b, i_h, lo, hi, o_t, m_t, m_d, m_d2, length, window, scale, cap,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, BIAS: tl.constexpr,
    D: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BD2: tl.constexpr,
    AHEAD: tl.constexpr, PRECISION: tl.constexpr, SPECIALIZED: tl.constexpr,
):  # fmt: skip
    """Take the keys from lo to hi, a multiple of BS apart, into the running maximum, sum and output of BT queries.

    With AHEAD the weights b_p and the fading b_fade of the last block are still to be applied, and so they are on return.
    """
    o_s = tl.arange(0, BS)
    for i_s in tl.range(lo, hi, BS, warp_specialize=SPECIALIZED):
        i_s = tl.multiple_of(i_s, BS)
        m_s = i_s + o_s < length
        if AHEAD:
            b_a = b_p.to(b_q.dtype)
        b_k = _tile(t_k, p_k, i_b, i_h, i_s, s_ks, m_s, m_d, BS, BD, 0, MASKED, BD <= D)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
        if BD2 > 0:
            b_k2 = _tile(t_k2, p_k2, i_b, i_h, i_s, s_ks, m_s, m_d2, BS, BD2, BD, MASKED, BD + BD2 == D)
            b_s = tl.dot(b_q2, b_k2.T, b_s, input_precision=PRECISION)
        if AHEAD:
            # before the first block there is none: weights of 0 meet values that are there
            i_v = tl.maximum(i_s - BS, 0)
            b_acc = b_acc * b_fade[:, None]
            b_v = _tile(t_v, p_v, i_b, i_h, i_v, s_vs, i_v + o_s < length, m_d, BS, BD, 0, MASKED, BD <= D)
            b_acc = tl.dot(b_a, b_v, b_acc, input_precision=PRECISION)
            if BD2 > 0:
                b_acc2 = b_acc2 * b_fade[:, None]
                b_v2 = _tile(t_v2, p_v2, i_b, i_h, i_v, s_vs, i_v + o_s < length, m_d2, BS, BD2, BD, MASKED, BD + BD2 == D)
                b_acc2 = tl.dot(b_a, b_v2, b_acc2, input_precision=PRECISION)
        # what is left to multiply scores with before exp2
        factor = scale
        if SOFTCAP:
            b_s = tanh(b_s * scale, b_k.dtype == tl.float32)
            factor = cap
        if BIAS != 0:
            m_x = m_t[:, None] & m_s[None, :] if MASKED else m_t[:, None]
            b_x = tl.load(p_bias + (i_s.to(tl.int64) * s_xs + o_s * s_xs)[None, :], mask=m_x, other=0)
            if BIAS == 1:
                b_s = b_s * factor + b_x.to(tl.float32) * LOG2_E
                factor = 1.0
            else:
                b_s = tl.where(b_x != 0, b_s, float("-inf"))
        if MASKED:
            b_s = tl.where(_visible(i_s, o_s, o_t, length, window, CAUSAL, WINDOW), b_s, float("-inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1) * factor)
        # a query that has seen no key yet keeps a finite pivot: its weights are exp2(-inf) = 0
        pivot = tl.where(b_m_new == float("-inf"), 0.0, b_m_new) if MASKED or BIAS != 0 else b_m_new
        b_w = tl.exp2(b_s * factor - pivot[:, None])
        b_fade = tl.exp2(b_m - pivot)
        if AHEAD:
            # a carried tensor would be put through shared memory, what is made of one goes from registers into the product
            b_p = b_w
        else:
            b_acc = b_acc * b_fade[:, None]
            b_v = _tile(t_v, p_v, i_b, i_h, i_s, s_vs, m_s, m_d, BS, BD, 0, MASKED, BD <= D)
            b_acc = tl.dot(b_w.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
            if BD2 > 0:
                b_acc2 = b_acc2 * b_fade[:, None]
                b_v2 = _tile(t_v2, p_v2, i_b, i_h, i_s, s_vs, m_s, m_d2, BS, BD2, BD, MASKED, BD + BD2 == D)
                b_acc2 = tl.dot(b_w.to(b_v2.dtype), b_v2, b_acc2, input_precision=PRECISION)
        b_l = b_l * b_fade + tl.sum(b_w, 1)
        b_m = b_m_new
    return b_acc, b_acc2, b_m, b_l, b_p, b_fade


@triton.jit
def _range(i_t, length, past, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr):
    """(lo, whole_lo, whole_hi, hi): keys outside of [lo, hi) are seen by none of BT queries, those in [whole_lo, whole_hi) by all."""
    lo = 0
    whole_lo = 0
    hi = length
    whole_hi = length
    first = i_t * BT + past
    last = first + BT - 1
    if WINDOW:
        lo = tl.maximum(first - window + 1, 0) // BS * BS
        whole_lo = tl.cdiv(tl.maximum(last - window + 1, 0), BS) * BS
        if not CAUSAL:
            hi = tl.maximum(tl.minimum(length, last + window), 0)
            whole_hi = tl.maximum(tl.minimum(length, first + window), 0)
    if CAUSAL:
        hi = tl.maximum(tl.minimum(length, last + 1), 0)
        whole_hi = tl.maximum(tl.minimum(length, first + 1), 0)
    whole_lo = tl.minimum(whole_lo, tl.maximum(tl.cdiv(hi, BS) * BS, lo))
    whole_hi = tl.maximum(whole_hi // BS * BS, whole_lo)
    return lo, whole_lo, whole_hi, hi


@triton.jit
def _finish(
    i, blocks,
    p_q, p_k, p_v, p_o, p_lse, p_lengths, p_bias, t_q, t_k, t_v, t_o, t_q2, t_k2, t_v2, t_o2,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_xb, s_xh, s_xt, s_xs,
    H, T, S, TOTAL, TOGETHER, window, scale, cap,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    BIAS: tl.constexpr, AHEAD: tl.constexpr, SPECIALIZED: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BD2: tl.constexpr,
):  # fmt: skip
    """Compute tile i and store it; the constants are those of the kernel."""
    head, i_t = _place(i, blocks, TOTAL, TOGETHER, CAUSAL)
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
    o_row = tl.arange(0, BT)
    o_s = tl.arange(0, BS)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    m_t = i_t * BT + o_row < T
    i_q = i_t * BT
    o_t = i_q + o_row + past
    b_p_q = p_q + at_b * s_qb + i_h.to(tl.int64) * s_qh + (o_row[:, None] * s_qt + o_d[None, :] * s_qd)
    b_p_k = p_k + at_b * s_kb + i_g.to(tl.int64) * s_kh + (o_s[:, None] * s_ks + o_d[None, :] * s_kd)
    b_p_v = p_v + at_b * s_vb + i_g.to(tl.int64) * s_vh + (o_s[:, None] * s_vs + o_d[None, :] * s_vd)
    b_p_x = p_bias
    if BIAS != 0:
        b_p_x = p_bias + at_b * s_xb + i_h.to(tl.int64) * s_xh + i_q.to(tl.int64) * s_xt + o_row[:, None] * s_xt
    # [BT, BD]
    b_q = _tile(t_q, b_p_q, i_b, i_h, i_q, s_qt, m_t, m_d, BT, BD, 0, True, False)
    b_acc = tl.zeros([BT, BD], tl.float32)
    m_d2 = m_d
    b_p_k2 = b_p_k
    b_p_v2 = b_p_v
    b_q2 = b_q
    b_acc2 = 0.0
    if BD2 > 0:
        o_d2 = BD + tl.arange(0, BD2)
        m_d2 = o_d2 < D
        b_p_q2 = p_q + at_b * s_qb + i_h.to(tl.int64) * s_qh + (o_row[:, None] * s_qt + o_d2[None, :] * s_qd)
        b_p_k2 = p_k + at_b * s_kb + i_g.to(tl.int64) * s_kh + (o_s[:, None] * s_ks + o_d2[None, :] * s_kd)
        b_p_v2 = p_v + at_b * s_vb + i_g.to(tl.int64) * s_vh + (o_s[:, None] * s_vs + o_d2[None, :] * s_vd)
        b_q2 = _tile(t_q2, b_p_q2, i_b, i_h, i_q, s_qt, m_t, m_d2, BT, BD2, BD, True, False)
        b_acc2 = tl.zeros([BT, BD2], tl.float32)

    lo, whole_lo, whole_hi, hi = _range(i_t, length, past, window, CAUSAL, WINDOW, BT, BS)
    b_m = tl.full([BT], float("-inf"), tl.float32)
    b_l = tl.zeros([BT], tl.float32)
    b_p = tl.zeros([BT, BS], tl.float32)
    b_fade = tl.zeros([BT], tl.float32) + 1.0
    if WINDOW:
        b_acc, b_acc2, b_m, b_l, b_p, b_fade = _through(
            b_acc, b_acc2, b_m, b_l, b_p, b_fade, b_q, b_q2, t_k, t_k2, t_v, t_v2, b_p_k, b_p_k2, b_p_v, b_p_v2, b_p_x,
            s_ks, s_vs, s_xs, i_b, i_g, lo, tl.minimum(whole_lo, hi), o_t, m_t, m_d, m_d2, length, window, scale, cap,
            MASKED=True, CAUSAL=CAUSAL, WINDOW=WINDOW, SOFTCAP=SOFTCAP, BIAS=BIAS, D=D, BS=BS, BD=BD, BD2=BD2,
            AHEAD=AHEAD, PRECISION=PRECISION, SPECIALIZED=SPECIALIZED,
        )  # fmt: skip
    b_acc, b_acc2, b_m, b_l, b_p, b_fade = _through(
        b_acc, b_acc2, b_m, b_l, b_p, b_fade, b_q, b_q2, t_k, t_k2, t_v, t_v2, b_p_k, b_p_k2, b_p_v, b_p_v2, b_p_x,
        s_ks, s_vs, s_xs, i_b, i_g, whole_lo, whole_hi, o_t, m_t, m_d, m_d2, length, window, scale, cap,
        MASKED=False, CAUSAL=CAUSAL, WINDOW=WINDOW, SOFTCAP=SOFTCAP, BIAS=BIAS, D=D, BS=BS, BD=BD, BD2=BD2,
        AHEAD=AHEAD, PRECISION=PRECISION, SPECIALIZED=SPECIALIZED,
    )  # fmt: skip
    b_acc, b_acc2, b_m, b_l, b_p, b_fade = _through(
        b_acc, b_acc2, b_m, b_l, b_p, b_fade, b_q, b_q2, t_k, t_k2, t_v, t_v2, b_p_k, b_p_k2, b_p_v, b_p_v2, b_p_x,
        s_ks, s_vs, s_xs, i_b, i_g, whole_hi, hi, o_t, m_t, m_d, m_d2, length, window, scale, cap,
        MASKED=True, CAUSAL=CAUSAL, WINDOW=WINDOW, SOFTCAP=SOFTCAP, BIAS=BIAS, D=D, BS=BS, BD=BD, BD2=BD2,
        AHEAD=AHEAD, PRECISION=PRECISION, SPECIALIZED=SPECIALIZED,
    )  # fmt: skip
    b_r = 1.0 / tl.where(b_l == 0.0, 1.0, b_l)
    if AHEAD:
        i_v = tl.maximum((hi - 1) // BS * BS, 0)
        b_acc = b_acc * b_fade[:, None]
        b_v = _tile(t_v, b_p_v, i_b, i_g, i_v, s_vs, i_v + o_s < length, m_d, BS, BD, 0, True, False)
        b_p = b_p.to(b_q.dtype)
        b_acc = tl.dot(b_p, b_v, b_acc, input_precision=PRECISION)
        if BD2 > 0:
            b_acc2 = b_acc2 * b_fade[:, None]
            b_v2 = _tile(t_v2, b_p_v2, i_b, i_g, i_v, s_vs, i_v + o_s < length, m_d2, BS, BD2, BD, True, False)
            b_acc2 = tl.dot(b_p, b_v2, b_acc2, input_precision=PRECISION)
    # the output is contiguous
    b_p_o = p_o + ((i_b * H + i_h).to(tl.int64) * T + i_q) * D + o_row[:, None] * D
    b_o = (b_acc * b_r[:, None]).to(p_o.dtype.element_ty)
    if t_o is not None:
        t_o.store([i_b, i_h, i_q, 0], b_o.reshape(1, 1, BT, BD))
    else:
        tl.store(b_p_o + o_d[None, :], b_o, mask=m_t[:, None] & m_d[None, :])
    if BD2 > 0:
        o_d2 = BD + tl.arange(0, BD2)
        b_o2 = (b_acc2 * b_r[:, None]).to(p_o.dtype.element_ty)
        if t_o2 is not None:
            t_o2.store([i_b, i_h, i_q, BD], b_o2.reshape(1, 1, BT, BD2))
        else:
            tl.store(b_p_o + o_d2[None, :], b_o2, mask=m_t[:, None] & (o_d2 < D)[None, :])
    if p_lse is not None:
        b_lse = (b_m + tl.log2(b_l)) * LN_2
        tl.store(p_lse + (i_b * H + i_h).to(tl.int64) * T + i_q + o_row, b_lse, mask=m_t)


@triton.jit(do_not_specialize=["T", "S", "window", "TOTAL", "TOGETHER"])
def prefill_kernel(
    p_q, p_k, p_v, p_o, p_lse, p_lengths, p_bias, t_q, t_k, t_v, t_o, t_q2, t_k2, t_v2, t_o2,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_xb, s_xh, s_xt, s_xs,
    H, T, S, TOTAL, TOGETHER, window, scale, cap,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    BIAS: tl.constexpr, AHEAD: tl.constexpr, PERSISTENT: tl.constexpr, SPECIALIZED: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BD2: tl.constexpr,
):  # fmt: skip
    """Program i computes tile i, or with PERSISTENT every tile a multiple of the number of programs away.

    LENGTHS: 0 none, 1 of padded rows, 2 of ragged rows. BIAS: 0 none, 1 added, 2 boolean. `scale` (and `cap`, if SOFTCAP) holds what
    turns a product of q and k (or a tanh) into the base-2 logarithm of a weight. Descriptors t are None where pointers are to be used.
    """
    blocks = tl.cdiv(T, BT)
    # a loop around a single tile would keep its constants in registers throughout: spills of a dozen
    if PERSISTENT:
        for i in tl.range(tl.program_id(0), blocks * TOTAL, tl.num_programs(0), num_stages=1):
            _finish(
                i, blocks,
                p_q, p_k, p_v, p_o, p_lse, p_lengths, p_bias, t_q, t_k, t_v, t_o, t_q2, t_k2, t_v2, t_o2,
                s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_xb, s_xh, s_xt, s_xs,
                H, T, S, TOTAL, TOGETHER, window, scale, cap,
                G, D, CAUSAL, LENGTHS, WINDOW, SOFTCAP, BIAS, AHEAD, SPECIALIZED, PRECISION, BT, BS, BD, BD2,
            )  # fmt: skip
    else:
        _finish(
            tl.program_id(0), blocks,
            p_q, p_k, p_v, p_o, p_lse, p_lengths, p_bias, t_q, t_k, t_v, t_o, t_q2, t_k2, t_v2, t_o2,
            s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_xb, s_xh, s_xt, s_xs,
            H, T, S, TOTAL, TOGETHER, window, scale, cap,
            G, D, CAUSAL, LENGTHS, WINDOW, SOFTCAP, BIAS, AHEAD, SPECIALIZED, PRECISION, BT, BS, BD, BD2,
        )  # fmt: skip
