"""Launching the kernels of sparse attention: means, the choice of blocks, and attention to them; or to first keys and a window."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton

from . import _sparse_code as code
from ._prefill_launch import described, descriptors
from ._sparse_blocks import KEYS, QUERIES, Choice
from ._sparse_triton import pool_kernel, select_kernel, sparse_kernel
from ._triton_tanh import LOG2_E

if TYPE_CHECKING:
    from ._prefill_tiles import Tile


def means(x: torch.Tensor, size: int, lengths: torch.Tensor | None) -> torch.Tensor:
    """float32 [batch, heads, blocks, head_dim]: of each block of so many tokens; 0 where all lie past a row's length."""
    batch, heads, tokens, head_dim = x.shape
    found = torch.empty(batch, heads, triton.cdiv(tokens, size), head_dim, dtype=torch.float32, device=x.device)
    pool_kernel[(batch * heads, found.shape[2])](
        x, found, lengths, *x.stride(), heads, tokens, found.shape[2],
        **code.pooling(head_dim, size, lengths=lengths is not None), num_warps=code.POOLING_WARPS, num_stages=2,
    )  # fmt: skip
    return found


def select(
    q: torch.Tensor, k: torch.Tensor, choice: Choice, *, scale: float, asked: code.Asked, lengths: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(numbers int32 [batch, heads, blocks of queries, blocks of keys], counts int32 [… , 2]): the blocks of keys that are kept.

    They ascend; of the counts the first is of those that every query of the block sees whole, the second of all.
    """
    batch, heads, queries, head_dim = q.shape
    rows, shared = means(q, QUERIES["cuda"], None), means(k, KEYS, lengths)
    blocks, keys = rows.shape[2], shared.shape[2]
    numbers = torch.empty(batch, heads, blocks, keys, dtype=torch.int32, device=q.device)
    counts = torch.empty(batch, heads, blocks, 2, dtype=torch.int32, device=q.device)
    logarithms = torch.empty(batch, heads, blocks, code.room(keys), dtype=torch.float32, device=q.device)
    fixed = code.selecting(asked, group=heads // k.shape[1], head_dim=head_dim, blocks=keys, parts=choice.parts)
    select_kernel[(batch * heads, blocks)](
        rows, shared, logarithms, numbers, counts, lengths, heads, queries, k.shape[2], blocks, keys, scale, choice.mass,
        **fixed, num_warps=code.SELECTING_WARPS, num_stages=2,
    )  # fmt: skip
    return numbers, counts


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, cut: Tile, asked: code.Asked, choice: Choice | None = None,
    window: int = 0, sinks: int = 0, lengths: torch.Tensor | None = None, together: int = 0, tma: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Attention of q [batch, heads, T, D] to chosen blocks of k, v [batch, kv_heads, S, D], with any strides; a new contiguous tensor.

    Without a choice to the first `sinks` keys and to those less than `window` away, of which `asked.causal` leaves out later ones. A query
    that sees no key yields 0. `tma`: by descriptors, where all tensors allow it. `together` heads are worked on side by side.
    """
    batch, heads, queries, head_dim = q.shape
    group, total = heads // k.shape[1], batch * heads
    numbers, counts = (None, None) if choice is None else select(q, k, choice, scale=scale, asked=asked, lengths=lengths)
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    by_tma = tma and all(described(tensor) for tensor in (q, k, v, output))
    odd = q.element_size() == 2 and any(tensor.stride(2) % 16 for tensor in (q, k, v))
    cut = code.where_it_lies(cut, head_dim, by_tma=by_tma, tma=tma, odd=odd)
    width = (code.whole_head(head_dim), 0)
    given = ((q, cut.bt), (k, cut.bs), (v, cut.bs), (output, cut.bt))
    tiles = [descriptors(tensor, rows, width)[0] if by_tma else None for tensor, rows in given]
    sparse_kernel[(total * triton.cdiv(queries, cut.bt),)](
        q, k, v, output, lengths, numbers, counts, *tiles, *q.stride(), *k.stride(), *v.stride(),
        heads, queries, k.shape[2], 0 if numbers is None else numbers.shape[3], total, min(together or group, total),
        min(window, queries + k.shape[2]), sinks, scale * LOG2_E.value,
        **code.constants(asked, group=group, head_dim=head_dim, cut=cut), num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    return output
