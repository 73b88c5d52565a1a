"""Triton kernels of a linear layer with everything around it in its epilogue; `_fused_triton` launches them.

A gate's matrix is interleaved with the other one row by row, so that both are one matrix, and neighbouring columns of one product belong
together: tensor cores leave those in one thread, which multiplies them without looking elsewhere.
In comments: T tokens, K inputs, N rows of the matrix, two for each output where there is a gate; BT, BK, BN their tiles.
"""

# Triton's dialect: arguments without types, constants in capitals, branches that are decided while compiling
# ruff: noqa: N803, SIM108
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activated(b, ACTIVATION: tl.constexpr):
    """The activation function of a float32 tile."""
    if ACTIVATION == "relu":
        b = tl.maximum(b, 0.0)
    elif ACTIVATION == "gelu":
        b = 0.5 * b * (1.0 + tl.erf(b * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        # 0.5 (1 + tanh u) = sigmoid(2 u)
        b = b * tl.sigmoid(1.5957691216057308 * (b + 0.044715 * b * b * b))
    elif ACTIVATION == "silu":
        b = b * tl.sigmoid(b)
    return b


@triton.jit
def _place(i, n_t, n_n, GROUP: tl.constexpr):
    """(row block, column block) of tile i: GROUP neighbouring row blocks go through the columns together and share w in the L2 cache."""
    first = i // (GROUP * n_n) * GROUP
    size = tl.minimum(n_t - first, GROUP)
    return first + i % (GROUP * n_n) % size, i % (GROUP * n_n) // size


@triton.jit
def _products(
    p_x, p_w, t_x, t_w, i_t, i_n, lo, hi, T, K, N, s_x,
    EVEN: tl.constexpr, SWAPPED: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """float32 [BT, BN]: x wᵀ of the inputs from lo to hi, by descriptors or, where those are None, by pointers.

    SWAPPED multiplies w xᵀ: so few tokens make no rows for tensor cores that read shared memory, but columns.
    """
    o_k = tl.arange(0, BK)
    if SWAPPED:
        b_y = tl.zeros([BN, BT], dtype=tl.float32)
    else:
        b_y = tl.zeros([BT, BN], dtype=tl.float32)
    if t_x is None:
        # rows and columns past the end read others instead, and are not stored: no masks in the loop
        o_t, o_n = (i_t * BT + tl.arange(0, BT)) % T, (i_n * BN + tl.arange(0, BN)) % N
        p_xk = p_x + o_t.to(tl.int64)[:, None] * s_x + (lo + o_k)[None, :]
        p_wk = p_w + o_n.to(tl.int64)[:, None] * K + (lo + o_k)[None, :]
    for k in range(lo, hi, BK):
        if t_x is not None:
            # [BT, BK], [BN, BK]: zeros past the ends
            b_x = t_x.load([i_t * BT, k])
            b_w = t_w.load([i_n * BN, k])
        else:
            if EVEN:
                b_x = tl.load(p_xk)
                b_w = tl.load(p_wk)
            else:
                b_x = tl.load(p_xk, mask=o_k[None, :] < hi - k, other=0.0)
                b_w = tl.load(p_wk, mask=o_k[None, :] < hi - k, other=0.0)
            p_xk += BK
            p_wk += BK
        if SWAPPED:
            b_y = tl.dot(b_w, b_x.T, b_y, input_precision="ieee")
        else:
            b_y = tl.dot(b_x, b_w.T, b_y, input_precision="ieee")
    if SWAPPED:
        b_y = b_y.T
    return b_y


@triton.jit
def _store(
    b_y, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Everything after the products of BC columns, and their storage."""
    o_t, o_n = i_row + tl.arange(0, BT), i_column + tl.arange(0, BC)
    if p_b is not None:
        b_y += tl.load(p_b + o_n, mask=o_n < N, other=0.0).to(tl.float32)[None, :]
    if p_h is not None:
        m_h = (o_t < T)[:, None] & (o_n < N)[None, :]
        tl.store(p_h + o_t.to(tl.int64)[:, None] * N + o_n[None, :], b_y.to(p_h.dtype.element_ty), mask=m_h)
    if GATED:
        b_up, b_gate = tl.split(tl.reshape(b_y, [BT, BC // 2, 2]))
        # [BT, BC / 2]
        b_y = activated(b_gate, ACTIVATION) * b_up
        i_o = i_column // 2
        outputs = N // 2
        o_o = i_o + tl.arange(0, BC // 2)
    else:
        b_y = activated(b_y, ACTIVATION)
        i_o = i_column
        outputs = N
        o_o = o_n
    m_y = (o_t < T)[:, None] & (o_o < outputs)[None, :]
    if p_r is not None:
        b_y += tl.load(p_r + o_t.to(tl.int64)[:, None] * s_r + o_o[None, :], mask=m_y, other=0.0).to(tl.float32)
    if t_y is not None:
        t_y.store([i_row, i_o], b_y.to(p_y.dtype.element_ty))
    else:
        tl.store(p_y + o_t.to(tl.int64)[:, None] * outputs + o_o[None, :], b_y.to(p_y.dtype.element_ty), mask=m_y)


@triton.jit
def _halves(b, BT: tl.constexpr, BC: tl.constexpr):
    """The left and the right half of [BT, BC]."""
    return tl.split(tl.permute(tl.reshape(b, [BT, 2, BC // 2]), [0, 2, 1]))


@triton.jit
def _finish(
    b_y, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, SUBTILE: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The epilogue, in SUBTILE parts one after the other: what one needs of registers and shared memory, the next has again."""
    if SUBTILE == 1:
        _store(b_y, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, BT, BN)
    else:
        b_left, b_right = _halves(b_y, BT, BN)
        _finish_half(b_left, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, SUBTILE // 2, BT, BN // 2)
        i_right = i_column + BN // 2
        _finish_half(b_right, i_row, i_right, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, SUBTILE // 2, BT, BN // 2)


@triton.jit
def _finish_half(
    b_y, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, SUBTILE: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """`_finish` of a half, which may be cut once more."""
    if SUBTILE == 1:
        _store(b_y, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, BT, BN)
    else:
        b_left, b_right = _halves(b_y, BT, BN)
        _store(b_left, i_row, i_column, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, BT, BN // 2)
        _store(b_right, i_row, i_column + BN // 2, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, BT, BN // 2)


@triton.jit
def linear_kernel(
    p_x, p_w, p_b, p_r, p_y, p_h, t_x, t_w, t_y, T, K, N, s_x, s_r,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, EVEN: tl.constexpr, SWAPPED: tl.constexpr, PERSISTENT: tl.constexpr,
    SUBTILE: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """y = act(x wᵀ + b) + r; GATED: of the columns of x wᵀ + b every second one through act, times the one before it.

    x [T, K] with rows s_x apart, w [N, K], b [N], r and y [T, outputs], rows of r s_r apart. h [T, N] receives x wᵀ + b. Pointers that
    are None leave their part out; descriptors t_… that are None are replaced by pointers. EVEN: K is a multiple of BK, or loads go by
    descriptors.
    """
    n_t, n_n = tl.cdiv(T, BT), tl.cdiv(N, BN)
    if PERSISTENT:
        # flattened, so that the next tile's loads begin during the epilogue of this one
        for i in tl.range(tl.program_id(0), n_t * n_n, tl.num_programs(0), flatten=True):
            i_t, i_n = _place(i, n_t, n_n, GROUP)
            b_y = _products(p_x, p_w, t_x, t_w, i_t, i_n, 0, K, T, K, N, s_x, EVEN, SWAPPED, BT, BN, BK)
            _finish(b_y, i_t * BT, i_n * BN, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, SUBTILE, BT, BN)
    else:
        i_t, i_n = _place(tl.program_id(0), n_t, n_n, GROUP)
        b_y = _products(p_x, p_w, t_x, t_w, i_t, i_n, 0, K, T, K, N, s_x, EVEN, SWAPPED, BT, BN, BK)
        _finish(b_y, i_t * BT, i_n * BN, p_b, p_r, p_y, p_h, t_y, T, N, s_r, ACTIVATION, GATED, SUBTILE, BT, BN)


@triton.jit
def linear_split_kernel(
    p_x, p_w, p_sums, t_x, t_w, T, K, N, s_x, part,
    EVEN: tl.constexpr, SWAPPED: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """sums [splits, T, N] float32: x wᵀ of `part` inputs, a multiple of BK, for each split; `linear_sum_kernel` does the rest."""
    i_s, n_n = tl.program_id(1), tl.cdiv(N, BN)
    i_t, i_n = tl.program_id(0) // n_n, tl.program_id(0) % n_n
    lo = i_s * part
    b_y = _products(p_x, p_w, t_x, t_w, i_t, i_n, lo, tl.minimum(lo + part, K), T, K, N, s_x, EVEN, SWAPPED, BT, BN, BK)
    o_t, o_n = i_t * BT + tl.arange(0, BT), i_n * BN + tl.arange(0, BN)
    at = (i_s.to(tl.int64) * T + o_t)[:, None] * N + o_n[None, :]
    tl.store(p_sums + at, b_y, mask=(o_t < T)[:, None] & (o_n < N)[None, :])


@triton.jit
def linear_sum_kernel(
    p_sums, p_b, p_r, p_y, p_h, T, N, s_r, splits, ACTIVATION: tl.constexpr, GATED: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """y of one token and BN columns, as `linear_kernel` has it, from the sums of all splits, added in their order."""
    i_t, i_n = tl.program_id(0), tl.program_id(1)
    o_n = i_n * BN + tl.arange(0, BN)
    b_y = tl.zeros([1, BN], dtype=tl.float32)
    p_part = p_sums + i_t.to(tl.int64) * N + o_n
    for _ in range(splits):
        b_y += tl.load(p_part, mask=o_n < N, other=0.0)[None, :]
        p_part += T * N
    _store(b_y, i_t, i_n * BN, p_b, p_r, p_y, p_h, None, T, N, s_r, ACTIVATION, GATED, 1, BN)
