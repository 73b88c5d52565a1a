"""Launching the prefill kernel: descriptors where TMA takes the tensors, strides, and what is fixed when it is compiled."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from ._prefill_code import Asked, constants
from ._prefill_tiles import Tile, by_pointers, for_odd_rows, parts
from ._prefill_triton import prefill_kernel
from ._triton_tanh import LOG2_E


def described(tensor: torch.Tensor) -> bool:
    """Whether a tensor [batch, heads, tokens, head_dim] is one that TMA takes: rows in one piece, all of them at multiples of 16 bytes."""
    size = tensor.element_size()
    steps = [stride * size for stride in tensor.stride()[:3]]
    return (
        tensor.stride(3) == 1
        and (tensor.shape[3] * size) % 16 == 0
        and tensor.data_ptr() % 16 == 0
        and all(step > 0 and step % 16 == 0 for step in steps)
    )


def descriptors(tensor: torch.Tensor, rows: int, widths: tuple[int, int]) -> list[TensorDescriptor | None]:
    """Descriptors of blocks of so many rows, for the first and the second part of head_dim."""
    sizes, steps = list(tensor.shape), list(tensor.stride())
    return [TensorDescriptor(tensor, sizes, steps, [1, 1, rows, width]) if width else None for width in widths]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool = False, ragged: bool = False,
    lengths: torch.Tensor | None = None, window: int = 0, softcap: float = 0.0, bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None, cut: Tile, together: int = 0, tma: bool = False, programs: int = 0,
    warp_specialize: bool = False, precision: str = "ieee", lse: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attention of q [batch, heads, T, D] over k, v [batch, kv_heads, S, D], with any strides; a new contiguous tensor like q.

    `bias` (added, -inf allowed) or bool `mask` (true is seen) broadcast to [batch, heads, T, S]. A query that sees no key yields 0.
    `lse` float32 [batch, heads, T] receives natural logarithms, -inf for such queries. `precision` is that of float32 products: "ieee",
    "tf32x3" or "tf32". `together` heads are worked on side by side, 0: those of a group. `tma`: by descriptors, where all tensors allow
    it, else by pointers and with a smaller tile. `programs` persistent ones, 0: one for each tile; the hardware hands those out as
    places fall free, and so evens out tiles of unequal length. Raises ValueError for shapes that do not go together.
    """
    _require_sense(q, k, lse)
    batch, heads, queries, head_dim = q.shape
    group, total, widths = heads // k.shape[1], batch * heads, parts(head_dim)
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    added = bias if mask is None else mask.view(torch.uint8)
    asked = Asked(
        causal=causal,
        lengths=0 if lengths is None else 2 if ragged else 1,
        window=window > 0,
        softcap=softcap > 0,
        bias=0 if added is None else 1 if mask is None else 2,
        precision=precision,
    )
    steps = (0,) * 4 if added is None else added.expand(batch, heads, queries, k.shape[2]).stride()
    by_tma = tma and all(described(tensor) for tensor in (q, k, v, output))
    if not by_tma:
        odd = q.element_size() == 2 and any(tensor.stride(2) % 16 for tensor in (q, k, v))
        cut = for_odd_rows(cut, head_dim, biased=asked.bias != 0) if odd else by_pointers(cut, head_dim) if tma else cut
    given = ((q, cut.bt), (k, cut.bs), (v, cut.bs), (output, cut.bt))
    pairs = [descriptors(tensor, rows, widths) if by_tma else [None, None] for tensor, rows in given]
    tiles = total * triton.cdiv(queries, cut.bt)
    prefill_kernel[(min(programs, tiles) if programs else tiles,)](
        q, k, v, output, lse, lengths, added, *(pair[0] for pair in pairs), *(pair[1] for pair in pairs),
        *q.stride(), *k.stride(), *v.stride(), *steps,
        heads, queries, k.shape[2], total, min(together or group, total), min(window, queries + k.shape[2]),
        scale / softcap if softcap else scale * LOG2_E.value, softcap * LOG2_E.value,
        **constants(asked, group=group, head_dim=head_dim, cut=cut, persistent=programs > 0, specialized=warp_specialize),
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return output


def _require_sense(q: torch.Tensor, k: torch.Tensor, lse: torch.Tensor | None) -> None:
    """Raise ValueError for what the kernel would read or write in wrong places."""
    if q.shape[1] % k.shape[1] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q {tuple(q.shape)} does not go with k {tuple(k.shape)}: heads are no multiple, or head_dims differ")
    if lse is not None and (lse.shape != q.shape[:3] or lse.dtype != torch.float32 or not lse.is_contiguous()):
        raise ValueError(f"lse {tuple(lse.shape)} {lse.dtype} is impossible: give a contiguous float32 tensor {tuple(q.shape[:3])}")
