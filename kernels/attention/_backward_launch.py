"""Launching the backward kernels: workspaces, descriptors where TMA takes the tensors, strides, and what is fixed when compiled."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import torch
import triton

from ._backward_tiles import Cut
from ._backward_triton import delta_kernel, keys_kernel, queries_kernel
from ._prefill_launch import described, descriptors
from ._triton_tanh import LOG2_E


def gradients(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, output: torch.Tensor, lse: torch.Tensor, grad: torch.Tensor, *, scale: float,
    causal: bool = False, ragged: bool = False, lengths: torch.Tensor | None = None, window: int = 0, softcap: float = 0.0,
    bias: torch.Tensor | None = None, mask: torch.Tensor | None = None, cut: Cut, shares: int = 1, together: int = 0, tma: bool = False,
    precision: str = "ieee",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of q [batch, heads, T, D], k and v [batch, kv_heads, S, D] for that of the output, `grad`, as large as q.

    `output` (contiguous) and `lse` (float32 [batch, heads, T], natural logarithms, -inf where a query sees no key) are those of the
    forward pass. Arguments are otherwise those of the forward pass. `shares`: programs among which the query
    heads of a group are divided. The results are new contiguous tensors.
    """
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    group, width = heads // kv_heads, max(16, triton.next_power_of_2(head_dim))
    most = max(cut.keys.bt, cut.queries.bt if cut.queries else 0)
    room = triton.cdiv(queries, most) * most
    rows = torch.empty((batch, heads, 2, room), dtype=torch.float32, device=q.device)
    delta_kernel[(triton.cdiv(room, 64), batch * heads)](
        output, grad, lse, rows, *grad.stride(), heads, queries, room, D=head_dim, BT=64, BD=width, num_warps=4
    )
    added = bias if mask is None else mask.view(torch.uint8)
    steps = (0,) * 4 if added is None else added.expand(batch, heads, queries, keys).stride()
    tma = tma and all(described(tensor) for tensor in (q, k, v, grad))
    once = cut.queries is None
    dq = torch.zeros(q.shape, dtype=torch.float32, device=q.device) if once else torch.empty_like(output)
    wide = k.dtype if shares == 1 else torch.float32
    dk, dv = (torch.empty((batch, kv_heads * shares, keys, head_dim), dtype=wide, device=q.device) for _ in range(2))
    constants = {
        "D": head_dim, "CAUSAL": causal, "LENGTHS": 0 if lengths is None else 2 if ragged else 1, "WINDOW": window > 0,
        "SOFTCAP": softcap > 0, "BIAS": 0 if added is None else 1 if mask is None else 2, "PRECISION": precision, "BD": width,
    }  # fmt: skip
    strides = (*q.stride(), *k.stride(), *v.stride(), *grad.stride(), *steps)
    numbers = (min(window, queries + keys), scale / softcap if softcap else scale * LOG2_E.value, softcap * LOG2_E.value, scale)

    def tiled(bt: int, bs: int) -> list[object]:
        given = ((q, bt), (k, bs), (v, bs), (grad, bt))
        return [descriptors(tensor, size, (width, 0))[0] if tma else None for tensor, size in given]

    total, tile = batch * kv_heads * shares, cut.keys
    summed = descriptors(dq, tile.bt, (width, 0))[0] if once and tma else None
    keys_kernel[(total * triton.cdiv(keys, tile.bs),)](
        q, k, v, grad, dq, dk, dv, rows, lengths, added, *tiled(tile.bt, tile.bs), summed, *strides,
        heads, queries, keys, room, total, min(together or 1, total), *numbers, G=group // shares, SHARES=shares, ONCE=once,
        BT=tile.bt, BS=tile.bs, num_warps=tile.warps, num_stages=tile.stages, **constants,
    )  # fmt: skip
    if shares > 1:
        dk, dv = (part.view(batch, kv_heads, shares, keys, head_dim).sum(2).to(k.dtype) for part in (dk, dv))
    if cut.queries is None:
        return torch.mul(dq, scale, out=torch.empty_like(output)), dk, dv
    total, tile = batch * heads, cut.queries
    queries_kernel[(total * triton.cdiv(queries, tile.bt),)](
        q, k, v, grad, dq, rows, lengths, added, *tiled(tile.bt, tile.bs), *strides,
        heads, queries, keys, room, total, min(together or group, total), *numbers, G=group,
        BT=tile.bt, BS=tile.bs, num_warps=tile.warps, num_stages=tile.stages, **constants,
    )  # fmt: skip
    return dq, dk, dv
