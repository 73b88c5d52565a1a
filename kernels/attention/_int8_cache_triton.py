"""The Triton kernel of attention over a long cache of 8-bit keys and values, and its launcher. It needs Triton to be imported.

Split-KV decoding as in `_decode_triton`, whose kernel combines the splits. Queries are quantized in registers, so that scores are products
of integers; values become 16-bit numbers, which hold them exactly, on their way from shared memory.
In comments: R rows, S keys, D head_dim; BM, BN, BD their tiles; D8: the width of a row of the cache; N = batch · heads · T.
"""
# ruff: noqa: N803, PLW2901, PLR0915
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._decode_code import combining
from ._decode_splits import MOST, Tile
from ._decode_triton import _seen, _stretch, _visible, combine_kernel
from ._int8_cache_code import Asked, constants
from ._int8_tiles import row_bytes
from ._int8_triton import step_of, whole
from ._triton_tanh import LOG2_E


@triton.jit(do_not_specialize=["batch", "T", "S", "splits", "window"])
def int8_split_kernel(
    p_q, p_k8, p_v8, p_k_steps, p_v_steps, p_o, p_part, p_lses, p_lengths,
    s_qb, s_qh, s_qt, s_qd, batch, kv_heads, T, S, splits, window, scale,
    G: tl.constexpr, D: tl.constexpr, D8: tl.constexpr, CAUSAL: tl.constexpr, RAGGED: tl.constexpr, WINDOW: tl.constexpr,
    PARTIAL: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """One stretch of keys for one block of rows; blocks that read the same keys run side by side, then the splits of one head.

    Keys and values int8 [batch, kv_heads, S, D8] and their steps float32 [batch, kv_heads, S] and [batch, kv_heads, D8] are contiguous.
    PARTIAL results go to p_part, float32 [splits, N, D], and p_lses [splits, N] in base 2, others to p_o.
    """
    blocks = tl.cdiv(T * G, BM)
    i_r = tl.program_id(0) % blocks
    i_split = tl.program_id(0) // blocks % splits
    i_kv = (tl.program_id(0) // blocks // splits).to(tl.int64)
    i_b = i_kv // kv_heads
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
    o_h = i_kv % kv_heads * G + o_r % G
    # [BM, BD]
    p_q += i_b * s_qb + (o_h * s_qh + o_q.to(tl.int64) * s_qt)[:, None] + o_d[None, :] * s_qd
    b_x = tl.load(p_q, mask=m_r[:, None] & m_d[None, :], other=0.0).to(tl.float32)
    b_step = step_of(tl.max(tl.abs(b_x), 1))
    b_q = whole(b_x * (1.0 / b_step)[:, None])
    b_step = b_step * (scale * LOG2_E)
    p_k8 += i_kv * S * D8 + o_s[:, None] * D8 + o_d[None, :]
    p_v8 += i_kv * S * D8 + o_s[:, None] * D8 + o_d[None, :]
    p_k_steps += i_kv * S + o_s

    first = i_r * BM // G + past
    last = tl.minimum((i_r * BM + BM - 1) // G, T - 1) + past
    begin, end, _, _ = _seen(first, last, length, window, CAUSAL, WINDOW)
    lo, hi = _stretch(begin, end, BN, splits, i_split)
    o_t = o_q + past
    b_m = tl.full([BM], float("-inf"), tl.float32)
    b_l = tl.zeros([BM], tl.float32)
    b_acc = tl.zeros([BM, BD], tl.float32)
    for i_s in range(lo, hi, BN):
        i_s = tl.multiple_of(i_s, BN)
        m_s = (i_s + o_s < end) & (i_s + o_s >= begin) if WINDOW else i_s + o_s < end
        at = i_s.to(tl.int64) * D8
        m_k = m_s[:, None] & (o_d < D8)[None, :] if BD != D8 else m_s[:, None]
        b_k = tl.load(p_k8 + at, mask=m_k, other=0)
        b_k_step = tl.load(p_k_steps + i_s, mask=m_s, other=0.0)
        # [BM, BN]
        b_s = tl.dot(b_q, tl.trans(b_k), out_dtype=tl.int32).to(tl.float32) * b_step[:, None] * b_k_step[None, :]
        b_s = tl.where(_visible(i_s, o_s, o_t, m_s, window, CAUSAL, WINDOW), b_s, float("-inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1))
        # a row that has seen no key yet keeps a finite pivot: its weights are exp2(-inf) = 0
        pivot = tl.where(b_m_new == float("-inf"), 0.0, b_m_new)
        b_p = tl.exp2(b_s - pivot[:, None])
        fade = tl.exp2(b_m - pivot)
        b_acc = b_acc * fade[:, None]
        b_v = tl.load(p_v8 + at, mask=m_k, other=0).to(p_o.dtype.element_ty)
        b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc, input_precision=PRECISION)
        b_l = b_l * fade + tl.sum(b_p, 1)
        b_m = b_m_new

    b_v_step = tl.load(p_v_steps + i_kv * D8 + o_d, mask=m_d, other=0.0)
    b_o = b_acc * b_v_step[None, :] / tl.where(b_l == 0.0, 1.0, b_l)[:, None]
    N = batch.to(tl.int64) * kv_heads * G * T
    o_n = (i_b * kv_heads * G + o_h) * T + o_q
    p_po = p_part + (i_split * N + o_n)[:, None] * D + o_d[None, :] if PARTIAL else p_o + o_n[:, None] * D + o_d[None, :]
    tl.store(p_po, b_o.to(p_po.dtype.element_ty), mask=m_r[:, None] & m_d[None, :])
    if PARTIAL:
        # log2(0) = -inf: of a row that has seen nothing, b_m is -inf, too
        tl.store(p_lses + i_split * N + o_n, b_m + tl.log2(b_l), mask=m_r)


def decode(
    q: torch.Tensor, k8: torch.Tensor, v8: torch.Tensor, k_steps: torch.Tensor, v_steps: torch.Tensor, *, scale: float,
    causal: bool = False, ragged: bool = False, lengths: torch.Tensor | None = None, window: int = 0, cut: Tile, splits: int,
    precision: str = "ieee",
) -> torch.Tensor:  # fmt: skip
    """Attention of q [batch, heads, T, D], of any strides, over a cache; a new contiguous tensor like q.

    k8, v8 int8 [batch, kv_heads, S, D rounded up to a multiple of 16] with steps float32 [batch, kv_heads, S] for each key and
    [batch, kv_heads, the same] for each feature of the values, all of them contiguous. A query that sees no key yields 0.
    Raises ValueError for splits that are impossible.
    """
    if not 1 <= splits <= MOST:
        raise ValueError(f"splits {splits} is impossible: give 1 to {MOST}")
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys, total, partial = k8.shape[1], k8.shape[2], batch * heads * queries, splits > 1
    assert k8.shape[3] == row_bytes(head_dim)
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    part, lses = (
        torch.empty((splits, total, *size), dtype=torch.float32, device=q.device) if partial else None for size in ((head_dim,), ())
    )
    asked = Asked(causal=causal and queries > 1, ragged=ragged, window=window > 0, partial=partial)
    group = heads // kv_heads
    int8_split_kernel[(splits * triton.cdiv(group * queries, cut.rows) * kv_heads * batch,)](
        q, k8, v8, k_steps, v_steps, output, part, lses, lengths, *q.stride(),
        batch, kv_heads, queries, keys, splits, min(window, queries + keys), scale,
        **constants(asked, group=group, head_dim=head_dim, cut=cut, precision=precision), num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    if partial:
        fixed, warps = combining(head_dim, splits)
        combine_kernel[(total, triton.cdiv(head_dim, fixed["BC"]))](part, lses, output, None, total, splits, **fixed, num_warps=warps)
    return output
