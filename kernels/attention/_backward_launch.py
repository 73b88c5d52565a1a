"""Launching the backward kernels: workspaces, descriptors where TMA takes the tensors, strides, and what is fixed when compiled."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import torch
import triton

from ._backward_code import DELTA_WARPS, delta_constants, keys_constants, queries_constants, width
from ._backward_tiles import Tile, by_pointers, for_odd_rows
from ._backward_triton import delta_kernel, keys_kernel, queries_kernel
from ._prefill_code import Asked
from ._prefill_launch import described, descriptors
from ._triton_tanh import LOG2_E


def gradients(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, output: torch.Tensor, lse: torch.Tensor, grad: torch.Tensor, *, scale: float,
    causal: bool = False, ragged: bool = False, lengths: torch.Tensor | None = None, window: int = 0, softcap: float = 0.0,
    bias: torch.Tensor | None = None, mask: torch.Tensor | None = None, cut: Tile, shares: int = 1, together: tuple[int, int] = (0, 0),
    tma: bool = False, summed_by_tma: bool = False, precision: str = "ieee",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of q [batch, heads, T, D], k and v [batch, kv_heads, S, D] for that of the output, `grad`, as large as q.

    `output` (contiguous) and `lse` (float32 [batch, heads, T], natural logarithms, -inf where a query sees no key) are those of the
    forward pass, whose other arguments are these, too. `shares`: programs among which the query heads of a group are divided.
    `together`: heads of keys, and of queries, that are worked on side by side, 0: one, and those of a group. `summed_by_tma`: gradients
    of queries are, which `tma` says of what is given. The results are new contiguous tensors.
    """
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    group, added = heads // kv_heads, bias if mask is None else mask.view(torch.uint8)
    asked = Asked(
        causal=causal,
        lengths=0 if lengths is None else 2 if ragged else 1,
        window=window > 0,
        softcap=softcap > 0,
        bias=0 if added is None else 1 if mask is None else 2,
        precision=precision,
    )
    by_tma = tma and all(described(tensor) for tensor in (q, k, v, grad))
    if not by_tma:
        odd = q.element_size() == 2 and any(tensor.stride(2) % 16 for tensor in (q, k, v, grad))
        cut = for_odd_rows(cut, head_dim) if odd else by_pointers(cut, head_dim) if tma else cut
    rows = _rows(output, lse, grad, cut)
    steps = (0,) * 4 if added is None else added.expand(batch, heads, queries, keys).stride()
    strides = (*q.stride(), *k.stride(), *v.stride(), *grad.stride(), *steps)
    numbers = (min(window, queries + keys), scale / softcap if softcap else scale * LOG2_E.value, softcap * LOG2_E.value, scale)
    launch = {"num_warps": cut.warps, "num_stages": cut.stages}

    def tiled(bt: int, bs: int) -> list[object]:
        given = ((q, bt), (k, bs), (v, bs), (grad, bt))
        return [descriptors(tensor, size, (width(head_dim), 0))[0] if by_tma else None for tensor, size in given]

    dq = None if cut.twice else torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    summed = descriptors(dq, cut.bt, (width(head_dim), 0))[0] if dq is not None and summed_by_tma and described(dq) else None
    wide = k.dtype if shares == 1 else torch.float32
    dk, dv = (torch.empty((batch, kv_heads * shares, keys, head_dim), dtype=wide, device=q.device) for _ in range(2))
    total = batch * kv_heads * shares
    keys_kernel[(total * triton.cdiv(keys, cut.bs),)](
        q, k, v, grad, dq, dk, dv, rows, lengths, added, *tiled(cut.bt, cut.bs), summed, *strides,
        heads, queries, keys, rows.shape[3], total, min(together[0] or 1, total), *numbers,
        **keys_constants(asked, group=group, shares=shares, head_dim=head_dim, cut=cut), **launch,
    )  # fmt: skip
    if shares > 1:
        dk, dv = (part.view(batch, kv_heads, shares, keys, head_dim).sum(2).to(k.dtype) for part in (dk, dv))
    if dq is not None:
        return torch.mul(dq, scale, out=torch.empty_like(output)), dk, dv
    dq, total, (bt, bs) = torch.empty_like(output), batch * heads, cut.turned
    queries_kernel[(total * triton.cdiv(queries, bt),)](
        q, k, v, grad, dq, rows, lengths, added, *tiled(bt, bs), *strides,
        heads, queries, keys, rows.shape[3], total, min(together[1] or group, total), *numbers,
        **queries_constants(asked, group=group, head_dim=head_dim, cut=cut), **launch,
    )  # fmt: skip
    return dq, dk, dv


def _rows(output: torch.Tensor, lse: torch.Tensor, grad: torch.Tensor, cut: Tile) -> torch.Tensor:
    """float32 [batch, heads, 2, room]: what every query brings along, in whole tiles of either kernel; see `delta_kernel`."""
    batch, heads, queries, head_dim = output.shape
    most = max(cut.bt, cut.turned[0])
    room = triton.cdiv(queries, most) * most
    rows = torch.empty((batch, heads, 2, room), dtype=torch.float32, device=output.device)
    fixed = delta_constants(head_dim)
    delta_kernel[(batch * heads * triton.cdiv(room, fixed["BT"]),)](
        output, grad, lse, rows, *grad.stride(), heads, queries, room, **fixed, num_warps=DELTA_WARPS
    )
    return rows
