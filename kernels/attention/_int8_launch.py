"""Launching the kernels of attention with 8-bit scores: mean and steps of the keys, the keys in 8 bit, attention."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import torch
import triton

from ._int8_code import SUMMED, Asked, constants, quantizing, quantizing_warps
from ._int8_tiles import BLOCK, PARTS, by_pointers, part, row_bytes, width
from ._int8_triton import int8_keys_kernel, int8_prefill_kernel, int8_sums_kernel
from ._prefill_launch import described, descriptors
from ._prefill_tiles import Tile


def quantized_keys(k: torch.Tensor, lengths: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 [batch, kv_heads, S, at least D], float32 [batch, kv_heads, blocks]): keys less their mean, and the steps of their blocks.

    Keys past a row's length have no part in either, and become 0. k may have any strides.
    """
    batch, kv_heads, keys, head_dim = k.shape
    total, wide, warps = batch * kv_heads, width(head_dim), quantizing_warps(head_dim)
    sums = torch.empty(total, PARTS, wide, dtype=torch.float32, device=k.device)
    k8 = torch.empty(batch, kv_heads, keys, row_bytes(head_dim), dtype=torch.int8, device=k.device)
    blocks = triton.cdiv(keys, BLOCK)
    steps = torch.empty(batch, kv_heads, blocks, dtype=torch.float32, device=k.device)
    fixed = quantizing(head_dim)
    given = (*k.stride(), kv_heads, keys)
    int8_sums_kernel[(total * PARTS,)](
        k, sums, lengths, *given, part(keys, SUMMED), D=head_dim, BS=SUMMED, BD=wide, num_warps=warps
    )  # fmt: skip
    int8_keys_kernel[(total * blocks,)](k, k8, steps, sums, lengths, *given, **fixed, num_warps=warps)
    return k8, steps


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool = False, ragged: bool = False,
    lengths: torch.Tensor | None = None, window: int = 0, cut: Tile, together: int = 0, tma: bool = False, precision: str = "ieee",
) -> torch.Tensor:  # fmt: skip
    """Attention of q [batch, heads, T, D] over k, v [batch, kv_heads, S, D], with any strides, scores in 8 bit; contiguous, like q.

    A query that sees no key yields 0. `together` heads are worked on side by side, 0: those of a group. `tma`: by descriptors, where
    values and output allow it, else by pointers and with a smaller tile. `precision` is that of float32 products of weights and values.
    """
    batch, heads, queries, head_dim = q.shape
    group, total = heads // k.shape[1], batch * heads
    k8, steps = quantized_keys(k, lengths)
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    by_tma = tma and described(v) and described(output)
    cut = cut if by_tma else by_pointers(cut, head_dim)
    wide = (width(head_dim), 0)
    described_ = [descriptors(x, rows, wide)[0] if by_tma else None for x, rows in ((k8, cut.bs), (v, cut.bs), (output, cut.bt))]
    asked = Asked(causal=causal, lengths=0 if lengths is None else 2 if ragged else 1, window=window > 0)
    int8_prefill_kernel[(total * triton.cdiv(queries, cut.bt),)](
        q, k8, v, output, steps, lengths, *described_, *q.stride(), *v.stride(),
        heads, queries, k.shape[2], total, min(together or group, total), min(window, queries + k.shape[2]), scale,
        **constants(asked, group=group, head_dim=head_dim, cut=cut, precision=precision), num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return output
