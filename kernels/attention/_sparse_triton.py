"""The Triton kernels of sparse attention; `_sparse_launch` launches them. They need Triton to be imported.

`pool_kernel` takes means of blocks, `select_kernel` estimates what each block of keys is worth to a block of queries and lists those that
are kept, `sparse_kernel` attends to them with the online softmax of FlashAttention-2 (Dao, arXiv 2307.08691) in base 2. Without a list it
attends to the first keys and a window. In comments: T queries, S keys, D head_dim; BT, BS, BD their tiles.
"""
# ruff: noqa: N803, PLR0915
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from ._prefill_triton import _place, _range, _tile


@triton.jit(do_not_specialize=["T"])
def pool_kernel(
    p_x, p_mean, p_lengths, s_b, s_h, s_t, s_d, H, T, N,
    LENGTHS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Program i, n: float32 mean of the tokens of block n of head i, those past the row's length left out; 0 where none is left."""
    i = tl.program_id(0)
    i_n = tl.program_id(1)
    i_b = i // H
    i_h = i % H
    length = T
    if LENGTHS:
        length = tl.minimum(tl.load(p_lengths + i_b), T)
    o_t = i_n * SIZE + tl.arange(0, SIZE)
    o_d = tl.arange(0, BD)
    at = p_x + i_b.to(tl.int64) * s_b + i_h.to(tl.int64) * s_h
    # [SIZE, BD]
    b_x = tl.load(at + o_t.to(tl.int64)[:, None] * s_t + o_d[None, :] * s_d, mask=(o_t < length)[:, None] & (o_d < D)[None, :], other=0.0)
    count = tl.maximum(tl.minimum(length - i_n * SIZE, SIZE), 1)
    b_mean = tl.sum(b_x.to(tl.float32), 0) / count
    tl.store(p_mean + (i.to(tl.int64) * N + i_n) * D + o_d, b_mean, mask=o_d < D)


@triton.jit
def _first(e, o, own, end):
    """What blocks are ranked by: those that stay in any case before all others, blocks that are not there last."""
    return tl.where(((o == 0) | (o >= own)) & (o < end), float("inf"), e)


@triton.jit(do_not_specialize=["T", "S", "NT", "NS"])
def select_kernel(
    p_q, p_k, p_e, p_numbers, p_counts, p_lengths, H, T, S, NT, NS, scale, MASS,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, PARTS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, BE: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Program i, n: which blocks of keys the block n of queries of head i attends to, ascending, and how many of them it sees whole.

    p_q and p_k hold the means, p_e is room for BN logarithms of weights. One of PARTS visible blocks is kept, or with 0
    as many as have MASS of the estimated weight. A block's place is found by counting those that come before it.
    """
    i = tl.program_id(0)
    i_t = tl.program_id(1)
    i_b = i // H
    i_h = i % H
    past = S - T
    length = S
    if LENGTHS:
        length = tl.minimum(tl.load(p_lengths + i_b), S)
        if LENGTHS == 2:
            past = length - T
    first = i_t * QUERIES + past
    seen = length
    if CAUSAL:
        seen = tl.maximum(tl.minimum(length, tl.minimum((i_t + 1) * QUERIES, T) + past), 0)
    end = tl.cdiv(seen, KEYS)
    own = end
    whole = length // KEYS
    if CAUSAL:
        own = tl.minimum(tl.maximum(first, 0) // KEYS, end)
        whole = tl.minimum(length, tl.maximum(first + 1, 0)) // KEYS
    at = i.to(tl.int64) * NT + i_t
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BE)
    b_q = tl.load(p_q + at * D + o_d, mask=o_d < D, other=0.0)
    b_p_k = p_k + (i_b * (H // G) + i_h // G).to(tl.int64) * NS * D
    b_p_e = p_e + at * BN
    for c in range(0, BN, BE):
        o = c + o_e
        # [BE, BD]
        b_k = tl.load(b_p_k + o[:, None] * D + o_d[None, :], mask=(o < end)[:, None] & (o_d < D)[None, :], other=0.0)
        size = tl.minimum(tl.maximum(length - o * KEYS, 1), KEYS)
        b_c = tl.sum(b_k * b_q[None, :], 1) * scale + tl.log(size.to(tl.float32))
        tl.store(b_p_e + o, tl.where(o < end, b_c, float("-inf")))
    tl.debug_barrier()
    o_n = tl.arange(0, BN)
    o_c = tl.arange(0, BC)
    b_e = tl.load(b_p_e + o_n)
    b_first = _first(b_e, o_n, own, end)
    b_rank = tl.zeros([BN], tl.int32)
    b_before = tl.zeros([BN], tl.float32)
    pivot = tl.max(b_e, 0)
    pivot = tl.where(pivot == float("-inf"), 0.0, pivot)
    for c in range(0, BN, BC):
        o = c + o_c
        b_c = tl.load(b_p_e + o)
        b_c_first = _first(b_c, o, own, end)
        # [BN, BC]
        before = (b_c_first[None, :] > b_first[:, None]) | ((b_c_first[None, :] == b_first[:, None]) & (o[None, :] < o_n[:, None]))
        b_rank += tl.sum(before.to(tl.int32), 1)
        if PARTS == 0:
            b_before += tl.sum(tl.where(before, tl.exp(b_c - pivot)[None, :], 0.0), 1)
    must = ((o_n == 0) | (o_n >= own)) & (o_n < end)
    if PARTS == 0:
        kept = must | (b_before < MASS * tl.sum(tl.exp(b_e - pivot), 0))
    else:
        kept = b_rank < tl.maximum(tl.sum(must.to(tl.int32), 0), tl.cdiv(end, PARTS))
    kept = kept & (o_n < end)
    b_place = tl.cumsum(kept.to(tl.int32), 0) - 1
    tl.store(p_numbers + at * NS + b_place, o_n, mask=kept)
    tl.store(p_counts + at * 2, tl.sum((kept & (o_n < whole)).to(tl.int32), 0))
    tl.store(p_counts + at * 2 + 1, tl.sum(kept.to(tl.int32), 0))


@triton.jit
def _along(
    b_acc, b_m, b_l, b_q, t_k, t_v, p_k, p_v, p_numbers, s_ks, s_vs, i_b, i_g, start, stop,
    o_t, m_d, length, window, sinks, near, far, lo, hi, scale,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, LISTED: tl.constexpr, KEYS: tl.constexpr,
    D: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take tiles of keys into the running maximum, sum and output of BT queries.

    With a list those of its blocks start … stop - 1; else so many tiles: `near` from key 0 on, `far` from lo on, others from hi on.
    """
    o_s = tl.arange(0, BS)
    parts: tl.constexpr = KEYS // BS
    for j in tl.range(start * parts if LISTED else start, stop * parts if LISTED else stop):
        if LISTED:
            i_s = tl.load(p_numbers + j // parts) * KEYS + j % parts * BS
        else:
            i_s = tl.where(j < near, j * BS, tl.where(j < near + far, lo + (j - near) * BS, hi + (j - near - far) * BS))
        i_s = tl.multiple_of(i_s, BS)
        m_s = i_s + o_s < length
        b_k = _tile(t_k, p_k, i_b, i_g, i_s, s_ks, m_s, m_d, BS, BD, 0, MASKED, BD <= D)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
        if MASKED:
            key = i_s + o_s
            visible = m_s[None, :]
            if CAUSAL:
                visible = visible & (key[None, :] <= o_t[:, None])
            if not LISTED:
                near_by = key[None, :] > o_t[:, None] - window
                if not CAUSAL:
                    near_by = near_by & (key[None, :] < o_t[:, None] + window)
                visible = visible & (near_by | (key < sinks)[None, :])
            b_s = tl.where(visible, b_s, float("-inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1) * scale)
        pivot = tl.where(b_m_new == float("-inf"), 0.0, b_m_new) if MASKED else b_m_new
        b_w = tl.exp2(b_s * scale - pivot[:, None])
        b_fade = tl.exp2(b_m - pivot)
        b_acc = b_acc * b_fade[:, None]
        b_v = _tile(t_v, p_v, i_b, i_g, i_s, s_vs, m_s, m_d, BS, BD, 0, MASKED, BD <= D)
        b_acc = tl.dot(b_w.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
        b_l = b_l * b_fade + tl.sum(b_w, 1)
        b_m = b_m_new
    return b_acc, b_m, b_l


@triton.jit(do_not_specialize=["T", "S", "NS", "TOTAL", "TOGETHER", "window", "sinks"])
def sparse_kernel(
    p_q, p_k, p_v, p_o, p_lengths, p_numbers, p_counts, t_q, t_k, t_v, t_o,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd,
    H, T, S, NS, TOTAL, TOGETHER, window, sinks, scale,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, LISTED: tl.constexpr, PRECISION: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Program i computes tile i. LISTED: keys by the lists of `select_kernel`, else the first `sinks` and those of the window.

    LENGTHS: 0 none, 1 of padded rows, 2 of ragged rows. `scale` turns a product of q and k into the base-2 logarithm of a weight.
    """
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
    o_row = tl.arange(0, BT)
    o_s = tl.arange(0, BS)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    i_q = i_t * BT
    m_t = i_q + o_row < T
    o_t = i_q + o_row + past
    b_p_q = p_q + at_b * s_qb + i_h.to(tl.int64) * s_qh + (o_row[:, None] * s_qt + o_d[None, :] * s_qd)
    b_p_k = p_k + at_b * s_kb + i_g.to(tl.int64) * s_kh + (o_s[:, None] * s_ks + o_d[None, :] * s_kd)
    b_p_v = p_v + at_b * s_vb + i_g.to(tl.int64) * s_vh + (o_s[:, None] * s_vs + o_d[None, :] * s_vd)
    # [BT, BD]
    b_q = _tile(t_q, b_p_q, i_b, i_h, i_q, s_qt, m_t, m_d, BT, BD, 0, True, False)
    b_acc = tl.zeros([BT, BD], tl.float32)
    b_m = tl.full([BT], float("-inf"), tl.float32)
    b_l = tl.zeros([BT], tl.float32)
    near = 0
    far = 0
    lo = 0
    hi = 0
    whole_lo = 0
    whole = 0
    b_p_n = p_numbers
    if LISTED:
        at = (at_b * H + i_h) * tl.cdiv(T, QUERIES) + i_q // QUERIES
        b_p_n = p_numbers + at * NS
        whole = tl.load(p_counts + at * 2)
        edged = tl.load(p_counts + at * 2 + 1)
        start = whole
    else:
        lo, whole_lo, whole_hi, stop = _range(i_t, length, past, window, CAUSAL, True, BT, BS)
        near = tl.cdiv(tl.minimum(sinks, length), BS)
        # tiles of the first keys are taken once
        lo = tl.maximum(lo, near * BS)
        whole_lo = tl.maximum(tl.minimum(whole_lo, tl.cdiv(stop, BS) * BS), lo)
        hi = tl.maximum(whole_hi, whole_lo)
        far = (whole_lo - lo) // BS
        whole = (hi - whole_lo) // BS
        start = 0
        edged = near + far + tl.cdiv(tl.maximum(stop - hi, 0), BS)
    b_acc, b_m, b_l = _along(
        b_acc, b_m, b_l, b_q, t_k, t_v, b_p_k, b_p_v, b_p_n, s_ks, s_vs, i_b, i_g, 0, whole,
        o_t, m_d, length, window, sinks, 0, whole, whole_lo, 0, scale,
        MASKED=False, CAUSAL=CAUSAL, LISTED=LISTED, KEYS=KEYS, D=D, BS=BS, BD=BD, PRECISION=PRECISION,
    )  # fmt: skip
    b_acc, b_m, b_l = _along(
        b_acc, b_m, b_l, b_q, t_k, t_v, b_p_k, b_p_v, b_p_n, s_ks, s_vs, i_b, i_g, start, edged,
        o_t, m_d, length, window, sinks, near, far, lo, hi, scale,
        MASKED=True, CAUSAL=CAUSAL, LISTED=LISTED, KEYS=KEYS, D=D, BS=BS, BD=BD, PRECISION=PRECISION,
    )  # fmt: skip
    b_r = 1.0 / tl.where(b_l == 0.0, 1.0, b_l)
    b_o = (b_acc * b_r[:, None]).to(p_o.dtype.element_ty)
    if t_o is not None:
        t_o.store([i_b, i_h, i_q, 0], b_o.reshape(1, 1, BT, BD))
    else:
        # the output is contiguous
        b_p_o = p_o + ((i_b * H + i_h).to(tl.int64) * T + i_q) * D + o_row[:, None] * D
        tl.store(b_p_o + o_d[None, :], b_o, mask=m_t[:, None] & m_d[None, :])
