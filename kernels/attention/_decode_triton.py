"""The Triton kernels of attention over a long cache, contiguous or paged, and their launcher. It needs Triton to be imported.

Split-KV decoding (Dao et al., "Flash-Decoding for long-context inference", 2023; FlashAttention-3, arXiv 2407.08608): the keys of
a row are cut into stretches, each program takes one with the online softmax in base 2, and a second kernel combines what they found.
The queries of a group of heads are packed as the rows of one tile: row r is token r // G and head r % G of one key-value head, so that
keys and values are read once for all of them. In comments: R rows, S keys, D head_dim; BM, BN, BD their tiles; N = batch · heads · T.
"""
# ruff: noqa: N803, PLW2901, C901, PLR0912, PLR0915
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import _decode_splits
from ._decode_code import Asked, combining, constants
from ._decode_splits import MOST, Tile, for_odd_rows
from ._triton_tanh import LN_2, LOG2_E, tanh

# the interpreter runs plain Python as it stands
_seen = _decode_splits.seen if triton.knobs.runtime.interpret else triton.jit(_decode_splits.seen)
_stretch = _decode_splits.stretch if triton.knobs.runtime.interpret else triton.jit(_decode_splits.stretch)


@triton.jit
def _pages(p_table, s_tc, i_s, o_s, end, PAGE: tl.constexpr, BN: tl.constexpr):
    """The page of a tile, or those of its keys where tiles and pages do not match; 0 from `end` on."""
    if PAGE % BN == 0:
        return tl.load(p_table + i_s // PAGE * s_tc, mask=i_s < end, other=0).to(tl.int64)
    else:  # noqa: RET505
        key = i_s + o_s
        return tl.load(p_table + key // PAGE * s_tc, mask=key < end, other=0).to(tl.int64)


@triton.jit
def _place(page, i_s, o_s, s_p, s_s, PAGE: tl.constexpr, BN: tl.constexpr):
    """int64 [BN]: where the keys of a tile lie, in items from the beginning of their row or pool."""
    if PAGE == 0:
        return i_s.to(tl.int64) * s_s + o_s * s_s
    elif PAGE % BN == 0:  # noqa: RET505
        return page * s_p + (i_s % PAGE).to(tl.int64) * s_s + o_s * s_s
    else:
        return page * s_p + (i_s + o_s) % PAGE * s_s


@triton.jit
def _tile(p, m_s, m_d, MASKED: tl.constexpr, EVEN_D: tl.constexpr):
    """[BN, BD]: keys or values, 0 where the masks say so."""
    if MASKED:
        b = tl.load(p, mask=m_s[:, None] & m_d[None, :], other=0.0)
    elif EVEN_D:
        b = tl.load(p)
    else:
        b = tl.load(p, mask=m_d[None, :], other=0.0)
    return b


@triton.jit
def _visible(i_s, o_s, o_t, m_s, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """bool [BM, BN]: the keys of a tile that each row sees from its position."""
    visible = m_s[None, :]
    if CAUSAL:
        visible = visible & ((i_s + o_s)[None, :] <= o_t[:, None])
    if WINDOW:
        visible = visible & ((i_s + o_s)[None, :] > o_t[:, None] - window)
        if not CAUSAL:
            visible = visible & ((i_s + o_s)[None, :] < o_t[:, None] + window)
    return visible


@triton.jit
def _through(
    b_acc, b_m, b_l, b_q, p_k, p_v, p_table, p_bias, s_kb, s_ks, s_vb, s_vs, s_tc, s_xs,
    lo, hi, begin, end, o_t, o_s, m_r, m_d, window, scale, cap,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, BIAS: tl.constexpr,
    EVEN_D: tl.constexpr, PAGE: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Take the keys from lo to hi, multiples of BN, into the running maximum, sum and output of BM rows."""
    page = _pages(p_table, s_tc, lo, o_s, end, PAGE, BN) if PAGE else 0
    for i_s in range(lo, hi, BN):
        i_s = tl.multiple_of(i_s, BN)
        m_s = (i_s + o_s < end) & (i_s + o_s >= begin) if WINDOW else i_s + o_s < end
        b_k = _tile(p_k + _place(page, i_s, o_s, s_kb, s_ks, PAGE, BN)[:, None], m_s, m_d, MASKED, EVEN_D)
        # [BM, BN]
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale
        if SOFTCAP:
            b_s = tanh(b_s, b_k.dtype == tl.float32) * cap
        if BIAS != 0:
            m_x = m_r[:, None] & m_s[None, :] if MASKED else m_r[:, None]
            b_x = tl.load(p_bias + (i_s.to(tl.int64) * s_xs + o_s * s_xs)[None, :], mask=m_x, other=0)
            b_s = b_s + b_x.to(tl.float32) * LOG2_E if BIAS == 1 else tl.where(b_x != 0, b_s, float("-inf"))
        if MASKED:
            b_s = tl.where(_visible(i_s, o_s, o_t, m_s, window, CAUSAL, WINDOW), b_s, float("-inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1))
        # a row that has seen no key yet keeps a finite pivot: its weights are exp2(-inf) = 0
        pivot = tl.where(b_m_new == float("-inf"), 0.0, b_m_new) if MASKED or BIAS != 0 else b_m_new
        b_p = tl.exp2(b_s - pivot[:, None])
        fade = tl.exp2(b_m - pivot)
        b_acc = b_acc * fade[:, None]
        b_v = _tile(p_v + _place(page, i_s, o_s, s_vb, s_vs, PAGE, BN)[:, None], m_s, m_d, MASKED, EVEN_D)
        b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
        b_l = b_l * fade + tl.sum(b_p, 1)
        b_m = b_m_new
        # found a round ahead: of a lookup in the same round the pipeliner makes a load of its own, and halves the stages of k and v
        if PAGE:
            page = _pages(p_table, s_tc, i_s + BN, o_s, end, PAGE, BN)
    return b_acc, b_m, b_l


@triton.jit
def _combined(p_part, p_lses, p_o, p_lse, N, splits, i_n, i_d, D: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr):
    """Items i_d … i_d + BC of row i_n out of its splits, weighed with exp2(lse - max); a split that saw no key has lse -inf."""
    o_s = tl.arange(0, BS)
    o_d = i_d + tl.arange(0, BC)
    m_s = o_s < splits
    # [BS]
    b_lse = tl.load(p_lses + o_s * N + i_n, mask=m_s, other=float("-inf"))
    # [BS, BC]
    b_o = tl.load(p_part + (o_s * N + i_n)[:, None] * D + o_d[None, :], mask=m_s[:, None] & (o_d < D)[None, :], other=0.0)
    b_m = tl.max(b_lse, 0)
    b_w = tl.exp2(b_lse - tl.where(b_m == float("-inf"), 0.0, b_m))
    b_l = tl.sum(b_w, 0)
    b_o = tl.sum(b_o * b_w[:, None], 0) / tl.where(b_l == 0.0, 1.0, b_l)
    tl.store(p_o + i_n * D + o_d, b_o.to(p_o.dtype.element_ty), mask=o_d < D)
    if p_lse is not None:
        tl.store(p_lse + i_n, (b_m + tl.log2(b_l)) * LN_2, mask=i_d == 0)


@triton.jit(do_not_specialize=["batch", "T", "S", "splits", "window"])
def split_kernel(
    p_q, p_k, p_v, p_o, p_lse, p_part, p_lses, p_lengths, p_table, p_bias, p_arrivals,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_tb, s_tc, s_xb, s_xh, s_xt, s_xs,
    batch, kv_heads, T, S, splits, window, scale, cap,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, RAGGED: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    BIAS: tl.constexpr, PAGE: tl.constexpr, PARTIAL: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One stretch of keys for one block of rows; blocks that read the same keys run side by side, then the splits of one head.

    `scale` holds the factor log2(e), or with a softcap 1 / softcap, and `cap` softcap · log2(e). PARTIAL results go to p_part, float32
    [splits, N, D], and p_lses [splits, N] in base 2, others to p_o and p_lse. A causal problem begins with its last rows.
    """
    EVEN_D: tl.constexpr = BD == D
    blocks = tl.cdiv(T * G, BM)
    i_r = tl.program_id(0) % blocks
    if CAUSAL:
        i_r = blocks - 1 - i_r
    i_split = tl.program_id(0) // blocks % splits
    i_h = tl.program_id(0) // blocks // splits % kv_heads
    i_b = (tl.program_id(0) // blocks // splits // kv_heads).to(tl.int64)
    length = S
    if p_lengths is not None:
        length = tl.minimum(tl.load(p_lengths + i_b), S)
    past = length - T if RAGGED else S - T

    o_r = i_r * BM + tl.arange(0, BM)
    o_s = tl.arange(0, BN)
    o_d = tl.arange(0, BD)
    m_r = o_r < T * G
    m_d = o_d < D
    o_q = o_r // G
    o_h = (i_h * G + o_r % G).to(tl.int64)
    # [BM, BD]
    p_q += i_b * s_qb + (o_h * s_qh + o_q.to(tl.int64) * s_qt)[:, None] + o_d[None, :] * s_qd
    b_q = tl.load(p_q, mask=m_r[:, None] & m_d[None, :], other=0.0)
    p_k += i_h.to(tl.int64) * s_kh + o_d[None, :] * s_kd
    p_v += i_h.to(tl.int64) * s_vh + o_d[None, :] * s_vd
    if PAGE:
        p_table += i_b * s_tb
    else:
        p_k += i_b * s_kb
        p_v += i_b * s_vb
    if BIAS != 0:
        p_bias += i_b * s_xb + (o_h * s_xh + o_q.to(tl.int64) * s_xt)[:, None]

    first = i_r * BM // G + past
    last = tl.minimum((i_r * BM + BM - 1) // G, T - 1) + past
    begin, end, whole, until = _seen(first, last, length, window, CAUSAL, WINDOW)
    lo, hi = _stretch(begin, end, BN, splits, i_split)
    o_t = o_q + past

    b_m = tl.full([BM], float("-inf"), tl.float32)
    b_l = tl.zeros([BM], tl.float32)
    b_acc = tl.zeros([BM, BD], tl.float32)
    from_whole, to_whole = lo, lo
    if WHOLE:
        from_whole = tl.maximum(tl.minimum((whole + BN - 1) // BN * BN, hi), lo)
        to_whole = tl.maximum(tl.minimum(until // BN * BN, hi), from_whole)
        if WINDOW:
            b_acc, b_m, b_l = _through(
                b_acc, b_m, b_l, b_q, p_k, p_v, p_table, p_bias, s_kb, s_ks, s_vb, s_vs, s_tc, s_xs,
                lo, from_whole, begin, end, o_t, o_s, m_r, m_d, window, scale, cap,
                True, CAUSAL, WINDOW, SOFTCAP, BIAS, EVEN_D, PAGE, PRECISION, BN,
            )  # fmt: skip
        b_acc, b_m, b_l = _through(
            b_acc, b_m, b_l, b_q, p_k, p_v, p_table, p_bias, s_kb, s_ks, s_vb, s_vs, s_tc, s_xs,
            from_whole, to_whole, begin, end, o_t, o_s, m_r, m_d, window, scale, cap,
            False, CAUSAL, WINDOW, SOFTCAP, BIAS, EVEN_D, PAGE, PRECISION, BN,
        )  # fmt: skip
    b_acc, b_m, b_l = _through(
        b_acc, b_m, b_l, b_q, p_k, p_v, p_table, p_bias, s_kb, s_ks, s_vb, s_vs, s_tc, s_xs,
        to_whole, hi, begin, end, o_t, o_s, m_r, m_d, window, scale, cap,
        True, CAUSAL, WINDOW, SOFTCAP, BIAS, EVEN_D, PAGE, PRECISION, BN,
    )  # fmt: skip

    N = batch.to(tl.int64) * kv_heads * G * T
    o_n = (i_b * kv_heads * G + o_h) * T + o_q
    p_po = p_part + (i_split * N + o_n)[:, None] * D + o_d[None, :] if PARTIAL else p_o + o_n[:, None] * D + o_d[None, :]
    b_o = b_acc / tl.where(b_l == 0.0, 1.0, b_l)[:, None]
    tl.store(p_po, b_o.to(p_po.dtype.element_ty), mask=m_r[:, None] & m_d[None, :])
    # log2(0) = -inf: of a row that has seen nothing, b_m is -inf, too
    b_lse = b_m + tl.log2(b_l)
    if PARTIAL:
        tl.store(p_lses + i_split * N + o_n, b_lse, mask=m_r)
    elif p_lse is not None:
        tl.store(p_lse + o_n, b_lse * LN_2, mask=m_r)
    if p_arrivals is not None:
        # all threads have stored before one of them counts this program in, for the whole GPU to see
        tl.debug_barrier()
        p_arrivals += tl.program_id(0) // (blocks * splits) * blocks + i_r
        if tl.atomic_add(p_arrivals, 1, sem="acq_rel", scope="gpu") == splits - 1:
            tl.store(p_arrivals, 0)
            for r in range(i_r * BM, tl.minimum(i_r * BM + BM, T * G)):
                i_n = (i_b * kv_heads * G + i_h * G + r % G) * T + r // G
                for i_d in range(0, D, BC):
                    _combined(p_part, p_lses, p_o, p_lse, N, splits, i_n, i_d, D, BS, BC)


@triton.jit(do_not_specialize=["N", "splits"])
def combine_kernel(p_part, p_lses, p_o, p_lse, N, splits, D: tl.constexpr, BS: tl.constexpr, BC: tl.constexpr):
    """One row of the output, BC items of it."""
    _combined(p_part, p_lses, p_o, p_lse, N, splits, tl.program_id(0).to(tl.int64), tl.program_id(1) * BC, D, BS, BC)


def _require_sense(q: torch.Tensor, k: torch.Tensor, splits: int, lse: torch.Tensor | None) -> None:
    """Raise ValueError for what the kernels would read or write in wrong places."""
    if not 1 <= splits <= MOST:
        raise ValueError(f"splits {splits} is impossible: give 1 to {MOST}")
    if q.shape[1] % k.shape[1] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q {tuple(q.shape)} does not go with k {tuple(k.shape)}: heads are no multiple, or head_dims differ")
    if lse is not None and (lse.shape != q.shape[:3] or lse.dtype != torch.float32 or not lse.is_contiguous()):
        raise ValueError(f"lse {tuple(lse.shape)} {lse.dtype} is impossible: give a contiguous float32 tensor {tuple(q.shape[:3])}")


def decode(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool = False, ragged: bool = False,
    lengths: torch.Tensor | None = None, block_table: torch.Tensor | None = None, kv_len: int, window: int = 0, softcap: float = 0.0,
    bias: torch.Tensor | None = None, mask: torch.Tensor | None = None, cut: Tile, splits: int, lse: torch.Tensor | None = None,
    precision: str = "ieee", arrivals: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attention of q [batch, heads, T, D] over a cache k, v [batch, kv_heads, kv_len, D]; a new contiguous tensor like q.

    With `block_table` int32 [batch, ceil(kv_len / page_size)], k and v are pools [pages, kv_heads, page_size, D]. All strides are taken.
    `bias` (added, -inf allowed) or bool `mask` (true is seen) broadcast to [batch, heads, T, kv_len]. A query that sees no key yields 0.
    `lse` float32 [batch, heads, T] receives natural logarithms, -inf for such queries. `precision` is that of float32 products: "ieee",
    "tf32x3" or "tf32". With `arrivals`, int32 zeros [batch · kv_heads · blocks of rows] that are zeros again afterwards and that no
    other call uses meanwhile, the last program of each block combines: one kernel instead of two. Raises ValueError for wrong shapes.
    """
    _require_sense(q, k, splits, lse)
    batch, heads, queries, head_dim = q.shape
    kv_heads, rows = k.shape[1], heads // k.shape[1] * queries
    if q.element_size() == 2 and any(tensor.stride(2) % 16 for tensor in (k, v)):
        cut = for_odd_rows(cut, head_dim)
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    total, partial = batch * heads * queries, splits > 1
    part, lses = (
        torch.empty((splits, total, *size), dtype=torch.float32, device=q.device) if partial else None for size in ((head_dim,), ())
    )
    added = bias if mask is None else mask.view(torch.uint8)
    steps = (0,) * 4 if added is None else added.expand(batch, heads, queries, kv_len).stride()
    fixed, combine_warps = combining(head_dim, splits)
    asked = Asked(
        causal=causal and queries > 1,
        ragged=ragged,
        window=window > 0,
        softcap=softcap > 0,
        bias=0 if added is None else 1 if mask is None else 2,
        page_size=0 if block_table is None else k.shape[2],
        partial=partial,
        precision=precision,
    )
    split_kernel[(splits * triton.cdiv(rows, cut.rows) * kv_heads * batch,)](
        q, k, v, output, lse, part, lses, lengths, block_table, added, arrivals if partial else None,
        *q.stride(), *k.stride(), *v.stride(), *((0, 1) if block_table is None else block_table.stride()), *steps,
        batch, kv_heads, queries, kv_len, splits, min(window, queries + kv_len),
        scale / softcap if softcap else scale * LOG2_E.value, softcap * LOG2_E.value,
        **constants(asked, group=heads // kv_heads, head_dim=head_dim, cut=cut, splits=splits),
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    if partial and arrivals is None:
        grid = (total, triton.cdiv(head_dim, fixed["BC"]))
        combine_kernel[grid](part, lses, output, lse, total, splits, **fixed, num_warps=combine_warps)
    return output
