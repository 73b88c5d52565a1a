"""Launching the kernel for Hopper: descriptors, the grid, and what is fixed when it is compiled."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import torch
import triton
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ._decode_code import combining
from ._decode_triton import combine_kernel
from ._hopper_code import Asked, constants
from ._hopper_gluon import hopper_kernel
from ._hopper_tiles import Tile
from ._prefill_launch import described
from ._triton_tanh import LOG2_E

MOST = 2**31
"""Numbers of partial results are counted in 32 bit."""


def descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
    """Of blocks of so many rows of a tensor [batch, heads, tokens, head_dim]; they lie in shared memory as products want them."""
    block = [1, 1, rows, tensor.shape[3]]
    layout = gl.NVMMASharedLayout.get_default_for(block, getattr(gl, str(tensor.dtype).removeprefix("torch.")))
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool = False, ragged: bool = False,
    lengths: torch.Tensor | None = None, packed: bool = False, splits: int = 1, cut: Tile, together: int = 0, multiprocessors: int,
) -> torch.Tensor:  # fmt: skip
    """Attention of q [batch, heads, T, D] over k, v [batch, kv_heads, S, D], float16 or bfloat16; a new contiguous tensor like q.

    `packed`: the heads of a group are rows of one tile, for few queries; then several programs may share the keys: `splits`. `together`
    heads are worked on side by side, 0: those of a group. Rows have to begin at multiples of 16 bytes, and may have any strides; a query
    that sees no key yields 0. Raises ValueError for shapes that do not go together, and strides that TMA does not take.
    """
    batch, heads, queries, head_dim = q.shape
    kv_heads = k.shape[1]
    if heads % kv_heads or head_dim != k.shape[3]:
        raise ValueError(f"q {tuple(q.shape)} does not go with k {tuple(k.shape)}: heads are no multiple, or head_dims differ")
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    tokens = 0
    if packed:
        # without a mask by position they are all alike: one form for any number of them
        tokens, rows = queries if causal else 1, (batch, kv_heads, heads // kv_heads * queries, head_dim)
        q, output = q.reshape(rows), output.view(rows)
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not described(tensor):
            raise ValueError(f"{name} with strides {tensor.stride()} is not taken by TMA: give rows at multiples of 16 bytes, in one piece")
    total, partial = batch * q.shape[1], splits > 1
    tiles = total * triton.cdiv(q.shape[2], cut.rows) * splits
    asked = Asked(causal=causal, lengths=0 if lengths is None else 2 if ragged else 1, tokens=tokens, partial=partial)
    part = lses = None
    if partial:
        size = (splits, total * q.shape[2])
        if size[0] * size[1] * head_dim >= MOST:
            raise ValueError(f"{splits} splits of {size[1]} rows are too many partial results: give fewer splits")
        part = torch.empty((*size, head_dim), dtype=torch.float32, device=q.device)
        lses = torch.empty(size, dtype=torch.float32, device=q.device)
    group = q.shape[1] // kv_heads
    hopper_kernel[(min(tiles, cut.resident * multiprocessors),)](
        *(descriptor(tensor, rows) for tensor, rows in ((q, 64), (k, cut.bs), (v, cut.bs), (output, 64))), part, lses, lengths,
        q.shape[1], q.shape[2], k.shape[2], total, min(together or group, total), splits, scale * LOG2_E.value,
        **constants(asked, group=group, head_dim=head_dim, cut=cut), num_warps=4, maxnreg=cut.registers,
    )  # fmt: skip
    if partial:
        fixed, warps = combining(head_dim, splits)
        grid = (total * q.shape[2], triton.cdiv(head_dim, fixed["BC"]))
        combine_kernel[grid](part, lses, output, None, grid[0], splits, **fixed, num_warps=warps)
    return output.view(batch, heads, queries, head_dim)
