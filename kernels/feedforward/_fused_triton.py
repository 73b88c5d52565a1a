"""Triton kernels of the feed-forward network: a norm, and a linear layer with everything around it in its epilogue.

In comments: T tokens, K inputs, N outputs of a layer; BT, BK, BN their tiles.
"""

# Triton's dialect: arguments without types, constants in capitals, branches that are decided while compiling
# ruff: noqa: N803, SIM108
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._fused_tiles import Tiles, constants, norm_constants, tiles


@triton.jit
def norm_kernel(p_x, p_w, p_b, p_y, s_x, D, eps, CENTRED: tl.constexpr, BD: tl.constexpr):
    """One token: LayerNorm when CENTRED, RMSNorm otherwise; statistics in float32."""
    i_t = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    # [BD]
    b_x = tl.load(p_x + i_t * s_x + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_w = tl.load(p_w + o_d, mask=m_d, other=0.0).to(tl.float32)
    if CENTRED:
        b_x = tl.where(m_d, b_x - tl.sum(b_x, axis=0) / D, 0.0)
    b_y = b_x * (b_w / tl.sqrt(tl.sum(b_x * b_x, axis=0) / D + eps))
    if CENTRED:
        b_y += tl.load(p_b + o_d, mask=m_d, other=0.0).to(tl.float32)
    tl.store(p_y + i_t * D + o_d, b_y.to(p_y.dtype.element_ty), mask=m_d)


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
def linear_kernel(
    p_x, p_w, p_g, p_b, p_bg, p_r, p_y, T, K, N, s_x, s_r,
    ACTIVATION: tl.constexpr, EVEN: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """y = act(x wᵀ + b) + r, or act(x gᵀ + bg) · (x wᵀ + b) + r; pointers that are None leave their part out.

    x [T, K] with rows s_x apart, w and g [N, K], r [T, N] with rows s_r apart, y [T, N]. EVEN: K is a multiple of BK.
    """
    # programs of GROUP neighbouring row blocks go through the column blocks together: they share w in the L2 cache
    n_t, n_n = tl.cdiv(T, BT), tl.cdiv(N, BN)
    i = tl.program_id(0)
    first = i // (GROUP * n_n) * GROUP
    size = tl.minimum(n_t - first, GROUP)
    i_t, i_n = first + i % (GROUP * n_n) % size, i % (GROUP * n_n) // size
    o_t, o_n, o_k = i_t * BT + tl.arange(0, BT), i_n * BN + tl.arange(0, BN), tl.arange(0, BK)
    # rows and columns past the end read others instead, and are not stored: no masks in the loop
    p_xk = p_x + (o_t % T).to(tl.int64)[:, None] * s_x + o_k[None, :]
    w_offset = (o_n % N).to(tl.int64)[None, :] * K + o_k[:, None]
    p_wk = p_w + w_offset
    b_y = tl.zeros([BT, BN], dtype=tl.float32)
    if p_g is not None:
        p_gk = p_g + w_offset
        b_g = tl.zeros([BT, BN], dtype=tl.float32)
    for k in range(0, K, BK):
        if EVEN:
            # [BT, BK], [BK, BN]
            b_x = tl.load(p_xk)
            b_w = tl.load(p_wk)
        else:
            b_x = tl.load(p_xk, mask=o_k[None, :] < K - k, other=0.0)
            b_w = tl.load(p_wk, mask=o_k[:, None] < K - k, other=0.0)
        b_y = tl.dot(b_x, b_w, b_y, input_precision="ieee")
        if p_g is not None:
            if EVEN:
                b_gw = tl.load(p_gk)
            else:
                b_gw = tl.load(p_gk, mask=o_k[:, None] < K - k, other=0.0)
            b_g = tl.dot(b_x, b_gw, b_g, input_precision="ieee")
            p_gk += BK
        p_xk += BK
        p_wk += BK
    m_n = o_n < N
    if p_b is not None:
        b_y += tl.load(p_b + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]
    if p_g is not None:
        if p_bg is not None:
            b_g += tl.load(p_bg + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]
        b_y = activated(b_g, ACTIVATION) * b_y
    else:
        b_y = activated(b_y, ACTIVATION)
    m_y = (o_t < T)[:, None] & m_n[None, :]
    if p_r is not None:
        # [BT, BN]
        b_y += tl.load(p_r + o_t.to(tl.int64)[:, None] * s_r + o_n[None, :], mask=m_y, other=0.0).to(tl.float32)
    tl.store(p_y + o_t.to(tl.int64)[:, None] * N + o_n[None, :], b_y.to(p_y.dtype.element_ty), mask=m_y)


def normalize(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    """LayerNorm of the rows of x [T, D] where a bias is given, RMSNorm otherwise."""
    tokens, dim = x.shape
    y = torch.empty((tokens, dim), dtype=x.dtype, device=x.device)
    fixed, warps = norm_constants(dim, centred=bias is not None)
    norm_kernel[(tokens,)](x, weight, bias, y, x.stride(0), dim, epsilon, **fixed, num_warps=warps)
    return y


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    gate: torch.Tensor | None = None,
    gate_bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    cut: Tiles | None = None,
) -> torch.Tensor:
    """x [T, K] through one layer with contiguous weight [N, K]; see `linear_kernel`. The columns of x and residual are adjacent.

    `cut`: None takes the tiles that go with so many tokens.
    """
    (tokens, inputs), outputs = x.shape, weight.shape[0]
    y = torch.empty((tokens, outputs), dtype=x.dtype, device=x.device)
    cut = cut or tiles(tokens, inputs, x.element_size(), gated=gate is not None)
    grid = (triton.cdiv(tokens, cut.bt) * triton.cdiv(outputs, cut.bn),)
    row = 0 if residual is None else residual.stride(0)
    linear_kernel[grid](
        x, weight, gate, bias, gate_bias, residual, y, tokens, inputs, outputs, x.stride(0), row, **constants(cut, inputs, activation)
    )  # fmt: skip
    return y
