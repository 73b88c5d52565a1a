"""The Triton kernel of fused attention, its tiles and its launcher. It needs Triton to be imported.

One program computes BT queries of one head against all keys that they see, with the online softmax of FlashAttention-2
(Dao, arXiv 2307.08691) in base 2. In comments: T queries, S keys, D head_dim; BT, BS, BD their tiles.
"""
# ruff: noqa: N803, PLW2901
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Tile:
    """How the work is cut, for how many warps, with how many stages of loads in flight."""

    bt: int
    bs: int
    warps: int
    stages: int


LIMITS = (16, 256, 1 << 62)
"""Numbers of queries up to which the first, second and third tile of a row below are meant."""

HOPPER = {
    64: (Tile(16, 128, 4, 3), Tile(64, 64, 4, 3), Tile(128, 128, 8, 3)),
    128: (Tile(16, 64, 4, 3), Tile(64, 64, 4, 2), Tile(128, 128, 8, 2)),
    256: (Tile(16, 32, 4, 3), Tile(64, 32, 8, 2), Tile(128, 64, 8, 2)),
}
"""16-bit tiles by head_dim, for up to 227 KB of shared memory: sm_90 and sm_100."""

AMPERE = {
    64: (Tile(16, 128, 4, 3), Tile(64, 64, 4, 3), Tile(128, 64, 8, 2)),
    128: (Tile(16, 64, 4, 2), Tile(64, 32, 4, 3), Tile(128, 32, 8, 3)),
    256: (Tile(16, 32, 4, 3), Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
}
"""16-bit tiles for all other cards: they fit 99 KB, which consumer cards have, too."""

REGISTERS = {
    64: (Tile(16, 32, 4, 2), Tile(32, 32, 4, 2), Tile(64, 32, 8, 2)),
    128: (Tile(16, 32, 4, 2), Tile(32, 32, 8, 2), Tile(32, 32, 8, 2)),
    256: (Tile(16, 16, 8, 2), Tile(16, 16, 8, 2), Tile(16, 16, 8, 2)),
}
"""float32 tiles: full precision does without tensor cores and works on registers."""


def offered(head_dim: int, item_bytes: int, capability: tuple[int, int]) -> tuple[Tile, Tile, Tile]:
    """The tiles for few, some and many queries."""
    table = REGISTERS if item_bytes == 4 else HOPPER if capability[0] in (9, 10) else AMPERE
    return next(table[width] for width in sorted(table) if head_dim <= width)


def tile(queries: int, head_dim: int, item_bytes: int, capability: tuple[int, int]) -> Tile:
    """The offered tile that goes with so many queries."""
    choice = offered(head_dim, item_bytes, capability)
    return next(choice[i] for i, limit in enumerate(LIMITS) if queries <= limit)


@triton.jit
def _through(
    b_acc, b_m, b_l, b_q, p_k, p_v, s_ks, s_vs, lo, hi, o_t, o_s, m_d, length, past, scale,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, EVEN_D: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Take the keys from lo to hi, a multiple of BS apart, into the running maximum, sum and output of BT queries."""
    for i_s in range(lo, hi, BS):
        i_s = tl.multiple_of(i_s, BS)
        step = i_s.to(tl.int64)
        # [BD, BS]
        if MASKED:
            b_k = tl.load(p_k + step * s_ks, mask=m_d[:, None] & (i_s + o_s < length)[None, :], other=0.0)
        elif EVEN_D:
            b_k = tl.load(p_k + step * s_ks)
        else:
            b_k = tl.load(p_k + step * s_ks, mask=m_d[:, None], other=0.0)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k, input_precision="ieee")
        if MASKED:
            visible = (i_s + o_s < length)[None, :]
            if CAUSAL:
                visible = visible & ((i_s + o_s)[None, :] <= o_t[:, None] + past)
            b_s = tl.where(visible, b_s, float("-inf"))
        b_m_new = tl.maximum(b_m, tl.max(b_s, 1) * scale)
        # a query that has seen no key yet keeps a finite pivot: its weights are exp2(-inf) = 0
        pivot = tl.where(b_m_new == float("-inf"), 0.0, b_m_new) if MASKED else b_m_new
        b_p = tl.exp2(b_s * scale - pivot[:, None])
        fade = tl.exp2(b_m - pivot)
        b_acc = b_acc * fade[:, None]
        # [BS, BD]
        if MASKED:
            b_v = tl.load(p_v + step * s_vs, mask=m_d[None, :] & (i_s + o_s < length)[:, None], other=0.0)
        elif EVEN_D:
            b_v = tl.load(p_v + step * s_vs)
        else:
            b_v = tl.load(p_v + step * s_vs, mask=m_d[None, :], other=0.0)
        b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc, input_precision="ieee")
        b_l = b_l * fade + tl.sum(b_p, 1)
        b_m = b_m_new
    return b_acc, b_m, b_l


@triton.jit
def attention_kernel(
    p_q, p_k, p_v, p_o, p_lengths,
    s_qb, s_qh, s_qt, s_qd, s_kb, s_kh, s_ks, s_kd, s_vb, s_vh, s_vs, s_vd, s_ob, s_oh, s_ot, s_od,
    H, T, S, scale,
    G: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, PADDING: tl.constexpr,
    BT: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Program i computes block i modulo the number of blocks of one head; `scale` holds the factor log2(e).

    A causal problem begins with the last block of a head, which sees the most keys.
    """
    EVEN_D: tl.constexpr = BD == D
    blocks = tl.cdiv(T, BT)
    i_t = tl.program_id(0) % blocks
    if CAUSAL:
        i_t = blocks - 1 - i_t
    i_b = (tl.program_id(0) // blocks // H).to(tl.int64)
    i_h = (tl.program_id(0) // blocks % H).to(tl.int64)
    past = S - T
    length = S
    if PADDING:
        length = tl.minimum(tl.load(p_lengths + i_b), S)

    o_t = i_t * BT + tl.arange(0, BT)
    o_s = tl.arange(0, BS)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    p_q += i_b * s_qb + i_h * s_qh + (i_t * BT).to(tl.int64) * s_qt
    p_k += i_b * s_kb + i_h // G * s_kh
    p_v += i_b * s_vb + i_h // G * s_vh
    p_o += i_b * s_ob + i_h * s_oh + (i_t * BT).to(tl.int64) * s_ot
    o_row = tl.arange(0, BT)
    m_td = (o_t < T)[:, None] & m_d[None, :]
    # [BT, BD]
    b_q = tl.load(p_q + o_row[:, None] * s_qt + o_d[None, :] * s_qd, mask=m_td, other=0.0)
    p_k += o_d[:, None] * s_kd + o_s[None, :] * s_ks
    p_v += o_s[:, None] * s_vs + o_d[None, :] * s_vd

    # keys below `whole` are seen by every query of the block, keys from `end` on by none
    end = length
    whole = length
    if CAUSAL:
        end = tl.maximum(tl.minimum(length, i_t * BT + BT + past), 0)
        whole = tl.maximum(tl.minimum(length, i_t * BT + past + 1), 0)
    whole = whole // BS * BS

    b_m = tl.full([BT], float("-inf"), tl.float32)
    b_l = tl.zeros([BT], tl.float32)
    b_acc = tl.zeros([BT, BD], tl.float32)
    b_acc, b_m, b_l = _through(
        b_acc, b_m, b_l, b_q, p_k, p_v, s_ks, s_vs, 0, whole, o_t, o_s, m_d, length, past, scale,
        MASKED=False, CAUSAL=CAUSAL, EVEN_D=EVEN_D, BS=BS,
    )  # fmt: skip
    b_acc, b_m, b_l = _through(
        b_acc, b_m, b_l, b_q, p_k, p_v, s_ks, s_vs, whole, end, o_t, o_s, m_d, length, past, scale,
        MASKED=True, CAUSAL=CAUSAL, EVEN_D=EVEN_D, BS=BS,
    )  # fmt: skip
    b_o = b_acc / tl.where(b_l == 0.0, 1.0, b_l)[:, None]
    tl.store(p_o + o_row[:, None] * s_ot + o_d[None, :] * s_od, b_o.to(p_o.dtype.element_ty), mask=m_td)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None, *, scale: float, causal: bool, cut: Tile
) -> torch.Tensor:
    """Attention of q [batch, heads, T, D] over k, v [batch, kv_heads, S, D], with any strides; a new contiguous tensor."""
    batch, heads, queries, head_dim = q.shape
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    attention_kernel[(triton.cdiv(queries, cut.bt) * batch * heads,)](
        q, k, v, output, lengths,
        *q.stride(), *k.stride(), *v.stride(), *output.stride(),
        heads, queries, k.shape[2], scale * LOG2_E,
        G=heads // k.shape[1], D=head_dim, CAUSAL=causal, PADDING=lengths is not None,
        BT=cut.bt, BS=cut.bs, BD=max(16, triton.next_power_of_2(head_dim)),
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return output
