"""The norm's Triton kernel, and the launches of it and of the linear layers'. It needs Triton to be imported."""

# Triton's dialect: arguments without types, constants in capitals, branches that are decided while compiling
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from .._cards import H100, Card
from ._fused_linear import activated, linear_kernel, linear_split_kernel, linear_sum_kernel
from ._fused_tiles import SUM_BLOCK, SUM_WARPS, Tiles, blocks, by_pointers, constants, norm_constants, part, tile_constants, tiles

__all__ = ["activated", "interleaved", "linear", "norm_kernel", "normalize"]


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


def normalize(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    """LayerNorm of the rows of x [T, D] where a bias is given, RMSNorm otherwise."""
    tokens, dim = x.shape
    y = torch.empty((tokens, dim), dtype=x.dtype, device=x.device)
    fixed, warps = norm_constants(dim, centred=bias is not None)
    norm_kernel[(tokens,)](x, weight, bias, y, x.stride(0), dim, epsilon, **fixed, num_warps=warps)
    return y


def interleaved(first: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Row by row of two matrices [N, K] one [2 N, K], or of two biases [N] one [2 N]: a copy, to be made once, in a build."""
    return torch.stack([first, gate], dim=1).flatten(0, 1)


@lru_cache(maxsize=64)
def card_of(device: torch.device) -> Card:
    """The card behind a device; Triton's interpreter runs on a CPU, as if it was an H100."""
    return Card.of(device) if device.type == "cuda" else H100


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    gated: bool = False,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    before: torch.Tensor | None = None,
    cut: Tiles | None = None,
) -> torch.Tensor:
    """x [T, K] through one layer: act(x wᵀ + b) + r, or act(x gᵀ + bg) · (x wᵀ + b) + r; a new tensor [T, N].

    `weight` [N, K] and bias [N] are contiguous, the columns of x and residual adjacent. `gated`: weight [2 N, K] and bias [2 N] are
    `interleaved` with the gate's. `before` [T, rows of weight] receives x wᵀ + b. Few tokens are worked on by more programs than there
    are tiles, each of which sums up a part of the inputs in float32; those sums are added in a fixed order. `cut`: None takes the tiles
    that go with so many tokens.
    """
    (tokens, inputs), rows, card = x.shape, weight.shape[0], card_of(x.device)
    y = torch.empty((tokens, rows // 2 if gated else rows), dtype=x.dtype, device=x.device)
    cut = cut or tiles(tokens, inputs, rows, x.element_size(), card)
    if cut.tma and not all(described(tensor) for tensor in (x, weight, y)):
        cut = by_pointers(cut)
    row = 0 if residual is None else residual.stride(0)
    share = part(tokens, inputs, rows, cut, card.multiprocessors)
    t_x, t_w = (_descriptor(tensor, size, cut.bk) if cut.tma else None for tensor, size in ((x, cut.bt), (weight, cut.bn)))
    if share < inputs:
        sums = _split(x, weight, t_x, t_w, share, cut)
        linear_sum_kernel[(tokens, triton.cdiv(rows, SUM_BLOCK))](
            sums, bias, residual, y, before, tokens, rows, row, sums.shape[0],
            ACTIVATION=activation, GATED=gated, BN=SUM_BLOCK, num_warps=SUM_WARPS,
        )  # fmt: skip
        return y
    t_y = _descriptor(y, cut.bt, cut.bn // cut.subtile // (2 if gated else 1)) if cut.tma else None
    there = blocks(cut, tokens, rows)
    linear_kernel[(min(cut.persistent * card.multiprocessors, there) if cut.persistent else there,)](
        x, weight, bias, residual, y, before, t_x, t_w, t_y, tokens, inputs, rows, x.stride(0), row,
        **constants(cut, inputs, activation, gated=gated), num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return y


def _split(
    x: torch.Tensor, weight: torch.Tensor, t_x: TensorDescriptor | None, t_w: TensorDescriptor | None, share: int, cut: Tiles
) -> torch.Tensor:
    """float32 [splits, T, N]: x wᵀ over `share` inputs each."""
    (tokens, inputs), rows = x.shape, weight.shape[0]
    sums = torch.empty((triton.cdiv(inputs, share), tokens, rows), dtype=torch.float32, device=x.device)
    linear_split_kernel[(blocks(cut, tokens, rows), sums.shape[0])](
        x, weight, sums, t_x, t_w, tokens, inputs, rows, x.stride(0), share,
        **tile_constants(cut, inputs), num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return sums


def described(tensor: torch.Tensor) -> bool:
    """Whether a matrix is one that TMA takes: rows in one piece, all of them at multiples of 16 bytes."""
    size = tensor.element_size()
    step = tensor.stride(0) * size
    return tensor.stride(1) == 1 and (tensor.shape[1] * size) % 16 == 0 and tensor.data_ptr() % 16 == 0 and step > 0 and step % 16 == 0


def _descriptor(tensor: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [rows, columns])
