"""Launching the kernels for 8-bit weights: tokens in 8 bit, and linear layers of them or of tokens as they are."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from .._int8 import Int8Weight
from . import _int8_tiles as cuts
from ._fused_triton import card_of
from ._int8_tiles import Tiles
from ._int8_triton import linear_int8_kernel, quantize_kernel


def padded(weight: Int8Weight) -> Int8Weight:
    """The matrix with rows filled up with zeros, as the kernels read it: values int8 [N, W], W a multiple of 128."""
    columns = weight.values.shape[1]
    return Int8Weight(F.pad(weight.values, (0, cuts.row_bytes(columns) - columns)).contiguous(), weight.scales.contiguous())


def quantize_rows(
    x: torch.Tensor, *, norm_weight: torch.Tensor | None = None, norm_bias: torch.Tensor | None = None, epsilon: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 [T, W], float32 [T]): rows of x [T, K] and the size of a step of each, of which its largest magnitude comes to 127.

    Ties are rounded to even. With norm_weight RMSNorm comes before, and LayerNorm with norm_bias, too. The columns of x are adjacent.
    """
    tokens, dim = x.shape
    width = cuts.row_bytes(dim)
    values = torch.empty((tokens, width), dtype=torch.int8, device=x.device)
    steps = torch.empty(tokens, dtype=torch.float32, device=x.device)
    fixed, warps = cuts.quantizing(dim, centred=norm_bias is not None)
    quantize_kernel[(tokens,)](x, norm_weight, norm_bias, values, steps, x.stride(0), dim, width, epsilon, **fixed, num_warps=warps)
    return values, steps


def linear_int8(
    values: torch.Tensor,
    steps: torch.Tensor,
    weight: Int8Weight,
    bias: torch.Tensor | None = None,
    *,
    gate: Int8Weight | None = None,
    gate_bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    cut: Tiles | None = None,
    tma: bool | None = None,
) -> torch.Tensor:
    """What `quantize_rows` gave, through one layer with `padded` matrices, multiplied as integers: [T, N] in out_dtype.

    The columns of residual [T, N] are adjacent. `cut`: None takes the tiles that go with the sizes and the card, `tma` likewise.
    Raises ValueError for rows of another width than the matrix has.
    """
    card = card_of(values.device)
    if cut is None:
        offered = cuts.integer_tiles(card.capability, gated=gate is not None)
        cut = cuts.chosen(offered, len(values), len(weight.values), card.multiprocessors)
    tma = cuts.takes_tma(card.capability, cut) if tma is None else tma
    return _launched(values, steps, (weight, bias), (gate, gate_bias), activation, residual, out_dtype, cut, tma=tma)


def linear_weights(
    x: torch.Tensor,
    weight: Int8Weight,
    bias: torch.Tensor | None = None,
    *,
    gate: Int8Weight | None = None,
    gate_bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    cut: Tiles | None = None,
) -> torch.Tensor:
    """x [T, K] through one layer with `padded` matrices, whose numbers are widened to x's dtype in registers: [T, N] in that dtype."""
    if cut is None:
        offered = cuts.widened_tiles(x.shape[1], x.element_size(), gated=gate is not None)
        cut = cuts.chosen(offered, len(x), len(weight.values), card_of(x.device).multiprocessors)
    return _launched(x, None, (weight, bias), (gate, gate_bias), activation, residual, x.dtype, cut, tma=False)


def _launched(
    x: torch.Tensor,
    steps: torch.Tensor | None,
    layer: tuple[Int8Weight, torch.Tensor | None],
    gating: tuple[Int8Weight | None, torch.Tensor | None],
    activation: str,
    residual: torch.Tensor | None,
    out_dtype: torch.dtype,
    cut: Tiles,
    *,
    tma: bool,
) -> torch.Tensor:
    (weight, bias), (gate, gate_bias) = layer, gating
    (tokens, columns), (outputs, width) = x.shape, weight.values.shape
    if width != cuts.row_bytes(columns) or (gate is not None and gate.values.shape != weight.values.shape):
        raise ValueError(f"activations have {columns} columns and the matrix {width}: give it filled up by `padded`")
    y = torch.empty((tokens, outputs), dtype=out_dtype, device=x.device)
    described = [
        TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, cut.bk]) if tma and matrix is not None else None
        for matrix, rows in ((x, cut.bt), (weight.values, cut.bn), (gate.values if gate else None, cut.bn))
    ]
    linear_int8_kernel[(triton.cdiv(tokens, cut.bt) * triton.cdiv(outputs, cut.bn),)](
        x, steps, weight.values, weight.scales, gate.values if gate else None, gate.scales if gate else None, bias, gate_bias, residual, y,
        *described, tokens, columns, outputs, width, x.stride(0), 0 if residual is None else residual.stride(0),
        **cuts.constants(cut, columns, activation), num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return y
