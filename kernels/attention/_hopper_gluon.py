"""Attention for Hopper GPUs (sm_90) in Gluon, Triton's language with explicit layouts, warps and barriers; `_hopper_launch` launches it.

As FlashAttention-3 (Shah et al., arXiv 2407.08608) divides the work: one warp loads by TMA, one or two warp groups of 64 queries each
multiply. Within a group the product of one block's weights and values runs beside the next block's softmax (section 3.2); two groups
take turns in beginning their products, so that one's softmax runs beside the other's products (section 3.1). Blocks of keys come last
first: those on the edge of what is seen, which need masks, stand before the loop that needs none.
In comments: T queries, S keys, D head_dim; BT and BS their tiles. Whoever waits for a barrier gives the parity of the round it waits for.
"""
# ruff: noqa: N803, RUF059
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from . import _prefill_tiles

_place = gluon.jit(_prefill_tiles.place)


@gluon.constexpr_function
def _accumulator(width):
    """How 64 rows of a product lie in the registers of a warp group."""
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, width, 16])


@gluon.jit
def _next(at, phase, STAGES: gl.constexpr):
    """The place after `at` in a ring, and the parity of its round."""
    at += 1
    if at == STAGES:
        at = 0
        phase ^= 1
    return at, phase


@gluon.jit
def _work(
    i, p_lengths, shape,
    CAUSAL: gl.constexpr, LENGTHS: gl.constexpr, TOKENS: gl.constexpr, PARTIAL: gl.constexpr, BT: gl.constexpr, BS: gl.constexpr,
):  # fmt: skip
    """Which part of the work tile i is, and the blocks of keys [lo, hi) that it reads: those from `whole` on need a mask.

    A stretch without blocks reads one of which it sees nothing. Keys from `end` on are not seen, `past` is the position of token 0.
    """
    blocks, H, T, S, TOTAL, TOGETHER, splits = shape
    i_split = 0
    if PARTIAL:
        i_split = i % splits
        i = i // splits
    head, i_t = _place(i, blocks, TOTAL, TOGETHER, CAUSAL)
    i_b = head // H
    end = S
    past = S - (TOKENS if TOKENS > 0 else T)
    if LENGTHS > 0:
        end = gl.minimum(gl.load(p_lengths + i_b), S)
        if LENGTHS == 2:
            past = end - (TOKENS if TOKENS > 0 else T)
    until = end
    if CAUSAL:
        first = past + (0 if TOKENS > 0 else i_t * BT)
        end = gl.maximum(gl.minimum(end, first + (TOKENS if TOKENS > 0 else BT)), 0)
        until = gl.maximum(gl.minimum(end, first + 1), 0)
    lo = 0
    hi = (end + BS - 1) // BS
    if PARTIAL:
        tiles = hi
        lo = tiles * i_split // splits
        hi = tiles * (i_split + 1) // splits
    end = gl.minimum(end, hi * BS)
    hi = gl.maximum(hi, lo + 1)
    whole = gl.maximum(gl.minimum(until // BS, hi - 1), lo)
    return i_b, head % H, i_t, i_split, past, end, lo, whole, hi


@gluon.jit
def _load(t, i_b, i_h, i_s, bars_full, bars_free, buffers, at, phase, BYTES: gl.constexpr):
    """Begin the load of a block into a place of its ring, as soon as that is free."""
    mbarrier.wait(bars_free.index(at), phase ^ 1)
    mbarrier.expect(bars_full.index(at), BYTES)
    tma.async_copy_global_to_shared(t, [i_b, i_h, i_s, 0], bars_full.index(at), buffers.index(at))


@gluon.jit
def _produce(
    t_q, t_k, t_v, queries, keys, values, p_lengths, shape,
    G: gl.constexpr, CAUSAL: gl.constexpr, LENGTHS: gl.constexpr, TOKENS: gl.constexpr, PARTIAL: gl.constexpr,
    D: gl.constexpr, BS: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr,
):  # fmt: skip
    """The warp that loads: queries of each group, then keys one block ahead of values, in the order in which they are asked for."""
    blocks, H, T, S, TOTAL, TOGETHER, splits = shape
    s_q, q_full, q_free = queries
    s_k, k_full, k_free = keys
    s_v, v_full, v_free = values
    at_k = 0
    phase_k = 0
    at_v = 0
    phase_v = 0
    phase_q = 0
    for i in range(gl.program_id(0), blocks * TOTAL * splits, gl.num_programs(0)):
        i_b, i_h, i_t, i_split, past, end, lo, whole, hi = _work(i, p_lengths, shape, CAUSAL, LENGTHS, TOKENS, PARTIAL, 64 * GROUPS, BS)
        for group in gl.static_range(GROUPS):
            _load(t_q, i_b, i_h, (i_t * GROUPS + group) * 64, q_full, q_free, s_q, group, phase_q, 64 * D * 2)
        phase_q ^= 1
        _load(t_k, i_b, i_h // G, (hi - 1) * BS, k_full, k_free, s_k, at_k, phase_k, BS * D * 2)
        at_k, phase_k = _next(at_k, phase_k, STAGES)
        for j in range(hi - 2, lo - 1, -1):
            _load(t_k, i_b, i_h // G, j * BS, k_full, k_free, s_k, at_k, phase_k, BS * D * 2)
            at_k, phase_k = _next(at_k, phase_k, STAGES)
            _load(t_v, i_b, i_h // G, (j + 1) * BS, v_full, v_free, s_v, at_v, phase_v, BS * D * 2)
            at_v, phase_v = _next(at_v, phase_v, STAGES)
        _load(t_v, i_b, i_h // G, lo * BS, v_full, v_free, s_v, at_v, phase_v, BS * D * 2)
        at_v, phase_v = _next(at_v, phase_v, STAGES)


@gluon.jit
def _softmax(b_s, b_m, b_l, o_s, o_t, i_s, end, scale, MASKED: gl.constexpr, CAUSAL: gl.constexpr):
    """Weights [64, BS] of a block, the running maximum and sum with it, and what fades the output so far; base 2."""
    if MASKED:
        visible = ((i_s + o_s) < end)[None, :]
        if CAUSAL:
            visible = visible & ((i_s + o_s)[None, :] <= o_t[:, None])
        b_s = gl.where(visible, b_s, float("-inf"))
    b_m_new = gl.maximum(b_m, gl.max(b_s, 1) * scale)
    # a query that has seen no key yet keeps a finite pivot: its weights are exp2(-inf) = 0
    pivot = gl.where(b_m_new == float("-inf"), 0.0, b_m_new) if MASKED else b_m_new
    b_w = gl.exp2(b_s * scale - pivot[:, None])
    b_fade = gl.exp2(b_m - pivot)
    return b_w, b_m_new, b_l * b_fade + gl.sum(b_w, 1), b_fade


@gluon.jit
def _round(
    b_q, b_p, b_acc, b_m, b_l, zero, keys, values, turns, at_k, phase_k, at_v, phase_v, turn, o_s, o_t, j, lo, end, scale,
    MASKED: gl.constexpr, CAUSAL: gl.constexpr, GROUP: gl.constexpr, GROUPS: gl.constexpr, IN_TURN: gl.constexpr,
    D: gl.constexpr, BS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Scores of block j, whose keys have been waited for, and beside them the product of the weights and values of block j + 1."""
    outputs: gl.constexpr = _accumulator(D)
    s_k, k_full, k_free = keys
    s_v, v_full, v_free = values
    if IN_TURN:
        mbarrier.wait(turns.index(GROUP), turn ^ (1 if GROUP == 0 else 0))
    # [64, BS]
    t_s = warpgroup_mma(b_q, s_k.index(at_k).reshape([BS, D]).permute((1, 0)), zero, use_acc=False, is_async=True)
    mbarrier.wait(v_full.index(at_v), phase_v)
    # [64, D]
    t_acc = warpgroup_mma(b_p, s_v.index(at_v).reshape([BS, D]), b_acc, is_async=True)
    if IN_TURN:
        mbarrier.arrive(turns.index((GROUP + 1) % GROUPS), count=1)
        turn ^= 1
    b_s = warpgroup_mma_wait(1, (t_s,))
    mbarrier.arrive(k_free.index(at_k), count=1)
    b_w, b_m, b_l, b_fade = _softmax(b_s, b_m, b_l, o_s, o_t, j * BS, end, scale, MASKED, CAUSAL)
    b_p_next = gl.convert_layout(b_w.to(b_p.dtype), gl.DotOperandLayout(0, parent=outputs, k_width=2))
    at_k, phase_k = _next(at_k, phase_k, STAGES)
    # stands here because it is a branch: in one piece of code ptxas would wait for the product first, and then begin the exponentials
    mbarrier.wait(k_full.index(at_k), phase_k, pred=j > lo)
    b_acc, b_p, b_p_next = warpgroup_mma_wait(0, (t_acc, b_p, b_p_next))
    mbarrier.arrive(v_free.index(at_v), count=1)
    at_v, phase_v = _next(at_v, phase_v, STAGES)
    b_acc = b_acc * gl.convert_layout(b_fade, gl.SliceLayout(1, outputs))[:, None]
    return b_p_next, b_acc, b_m, b_l, at_k, phase_k, at_v, phase_v, turn


@gluon.jit
def _store(b_acc, b_lse, b_q, s_q, t_o, p_part, p_lses, i_b, i_h, i_q, i_split, shape, o_r, D: gl.constexpr, PARTIAL: gl.constexpr):
    """64 rows of the output, or of a stretch: to p_part with their logarithms."""
    blocks, H, T, S, TOTAL, TOGETHER, splits = shape
    if PARTIAL:
        row = ((i_split * (TOTAL // H) + i_b) * H + i_h) * T
        o_o = i_q + gl.arange(0, 64, layout=gl.SliceLayout(1, _accumulator(D)))
        o_d = gl.arange(0, D, layout=gl.SliceLayout(0, _accumulator(D)))
        gl.store(p_part + ((row + o_o) * D)[:, None] + o_d[None, :], b_acc, mask=(o_o < T)[:, None])
        gl.store(p_lses + row + i_q + o_r, b_lse, mask=i_q + o_r < T)
    else:
        # nobody reads the queries any more: the output takes their place
        b_q.store(b_acc.to(t_o.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(t_o, [i_b, i_h, i_q, 0], s_q)
        tma.store_wait(0)


@gluon.jit
def _consume(
    t_o, p_part, p_lses, queries, keys, values, turns, p_lengths, shape, scale,
    CAUSAL: gl.constexpr, LENGTHS: gl.constexpr, TOKENS: gl.constexpr, PARTIAL: gl.constexpr,
    D: gl.constexpr, BS: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr, IN_TURN: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """A warp group: 64 rows of every tile of the program, from queries to output."""
    dtype: gl.constexpr = t_o.dtype
    scores: gl.constexpr = _accumulator(BS)
    outputs: gl.constexpr = _accumulator(D)
    weights: gl.constexpr = gl.DotOperandLayout(0, parent=outputs, k_width=2)
    blocks, H, T, S, TOTAL, TOGETHER, splits = shape
    s_q, q_full, q_free = queries
    s_k, k_full, k_free = keys
    s_v, v_full, v_free = values
    at_k = 0
    phase_k = 0
    at_v = 0
    phase_v = 0
    phase_q = 0
    turn = 0
    o_s = gl.arange(0, BS, layout=gl.SliceLayout(0, scores))
    o_r = gl.arange(0, 64, layout=gl.SliceLayout(1, scores))
    zero = gl.zeros([64, BS], gl.float32, layout=scores)
    b_q = s_q.index(GROUP).reshape([64, D])
    for i in range(gl.program_id(0), blocks * TOTAL * splits, gl.num_programs(0)):
        i_b, i_h, i_t, i_split, past, end, lo, whole, hi = _work(i, p_lengths, shape, CAUSAL, LENGTHS, TOKENS, PARTIAL, 64 * GROUPS, BS)
        i_q = (i_t * GROUPS + GROUP) * 64
        o_t = i_q + o_r + past
        if TOKENS > 0:
            o_t = (i_q + o_r) % TOKENS + past
        b_m = gl.full([64], float("-inf"), gl.float32, layout=gl.SliceLayout(1, scores))
        b_l = gl.zeros([64], gl.float32, layout=gl.SliceLayout(1, scores))
        b_acc = gl.zeros([64, D], gl.float32, layout=outputs)
        mbarrier.wait(q_full.index(GROUP), phase_q)
        mbarrier.wait(k_full.index(at_k), phase_k)
        t_s = warpgroup_mma(b_q, s_k.index(at_k).reshape([BS, D]).permute((1, 0)), zero, use_acc=False, is_async=True)
        b_s = warpgroup_mma_wait(0, (t_s,))
        mbarrier.arrive(k_free.index(at_k), count=1)
        at_k, phase_k = _next(at_k, phase_k, STAGES)
        b_w, b_m, b_l, b_fade = _softmax(b_s, b_m, b_l, o_s, o_t, (hi - 1) * BS, end, scale, True, CAUSAL)
        b_p = gl.convert_layout(b_w.to(dtype), weights)
        mbarrier.wait(k_full.index(at_k), phase_k, pred=hi - 1 > lo)
        if CAUSAL:  # else only the last block may stick out
            for j in range(hi - 2, whole - 1, -1):
                b_p, b_acc, b_m, b_l, at_k, phase_k, at_v, phase_v, turn = _round(
                    b_q, b_p, b_acc, b_m, b_l, zero, keys, values, turns, at_k, phase_k, at_v, phase_v, turn, o_s, o_t, j, lo, end, scale,
                    True, True, GROUP, GROUPS, IN_TURN, D, BS, STAGES,
                )  # fmt: skip
        for j in range(whole - 1, lo - 1, -1):
            b_p, b_acc, b_m, b_l, at_k, phase_k, at_v, phase_v, turn = _round(
                b_q, b_p, b_acc, b_m, b_l, zero, keys, values, turns, at_k, phase_k, at_v, phase_v, turn, o_s, o_t, j, lo, end, scale,
                False, CAUSAL, GROUP, GROUPS, IN_TURN, D, BS, STAGES,
            )  # fmt: skip
        mbarrier.wait(v_full.index(at_v), phase_v)
        t_acc = warpgroup_mma(b_p, s_v.index(at_v).reshape([BS, D]), b_acc, is_async=True)
        b_r = gl.convert_layout(1.0 / gl.where(b_l == 0.0, 1.0, b_l), gl.SliceLayout(1, outputs))
        b_acc, b_p = warpgroup_mma_wait(0, (t_acc, b_p))
        mbarrier.arrive(v_free.index(at_v), count=1)
        at_v, phase_v = _next(at_v, phase_v, STAGES)
        b_acc = b_acc * b_r[:, None]
        _store(
            b_acc, b_m + gl.log2(b_l), b_q, s_q.index(GROUP), t_o, p_part, p_lses, i_b, i_h, i_q, i_split, shape, o_r, D, PARTIAL,
        )  # fmt: skip
        mbarrier.arrive(q_free.index(GROUP), count=1)
        phase_q ^= 1


@gluon.jit
def _ring(places: gl.constexpr, count: gl.constexpr):
    """Barriers for the places of a ring, each passed when so many have arrived."""
    bars = gl.allocate_shared_memory(gl.int64, [places, 1], mbarrier.MBarrierLayout())
    for place in gl.static_range(places):
        mbarrier.init(bars.index(place), count=count)
    return bars


@gluon.jit(do_not_specialize=["H", "T", "S", "TOTAL", "TOGETHER", "splits"])
def hopper_kernel(
    t_q, t_k, t_v, t_o, p_part, p_lses, p_lengths, H, T, S, TOTAL, TOGETHER, splits, scale,
    G: gl.constexpr, D: gl.constexpr, CAUSAL: gl.constexpr, LENGTHS: gl.constexpr, TOKENS: gl.constexpr, PARTIAL: gl.constexpr,
    BS: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr, IN_TURN: gl.constexpr, HOLDS: gl.constexpr,
):  # fmt: skip
    """Program i computes every tile a multiple of the number of programs away: GROUPS · 64 rows of one head, or a stretch of its keys.

    H heads of each batch row with T rows of queries and one key head for G of them; TOTAL heads of all batch rows. TOKENS: the rows are
    those of a group of heads, so many tokens of each; 0: they are tokens. LENGTHS: 0 none, 1 of padded rows, 2 of ragged rows. PARTIAL
    results of `splits` stretches go to p_part, float32 [splits, TOTAL · T, D], and p_lses [splits, TOTAL · T] in base 2. `scale` holds the
    factor log2(e). HOLDS: registers of a thread that multiplies.
    """
    dtype: gl.constexpr = t_q.dtype
    s_q = gl.allocate_shared_memory(dtype, [GROUPS, 1, 1, 64, D], t_q.layout)
    s_k = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, BS, D], t_k.layout)
    s_v = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, BS, D], t_v.layout)
    queries = (s_q, _ring(GROUPS, 1), _ring(GROUPS, 1))
    keys = (s_k, _ring(STAGES, 1), _ring(STAGES, GROUPS))
    values = (s_v, _ring(STAGES, 1), _ring(STAGES, GROUPS))
    turns = _ring(GROUPS, 1)
    blocks = gl.cdiv(T, 64 * GROUPS)
    # what is fixed stays outside of the tuples: a tuple that has a name holds numbers that are not
    shape = (blocks, H, T, S, TOTAL, TOGETHER, splits)
    if GROUPS == 1:
        gl.warp_specialize(
            [
                (_consume, (t_o, p_part, p_lses, queries, keys, values, turns, p_lengths, shape, scale,
                            CAUSAL, LENGTHS, TOKENS, PARTIAL, D, BS, STAGES, GROUPS, IN_TURN, 0)),
                (_produce, (t_q, t_k, t_v, queries, keys, values, p_lengths, shape,
                            G, CAUSAL, LENGTHS, TOKENS, PARTIAL, D, BS, STAGES, GROUPS)),
            ],
            [1],
            [24],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (_consume, (t_o, p_part, p_lses, queries, keys, values, turns, p_lengths, shape, scale,
                            CAUSAL, LENGTHS, TOKENS, PARTIAL, D, BS, STAGES, GROUPS, IN_TURN, 0)),
                (_consume, (t_o, p_part, p_lses, queries, keys, values, turns, p_lengths, shape, scale,
                            CAUSAL, LENGTHS, TOKENS, PARTIAL, D, BS, STAGES, GROUPS, IN_TURN, 1)),
                (_produce, (t_q, t_k, t_v, queries, keys, values, p_lengths, shape,
                            G, CAUSAL, LENGTHS, TOKENS, PARTIAL, D, BS, STAGES, GROUPS)),
            ],
            [4, 1],
            [HOLDS, 24],
        )  # fmt: skip
