"""Paged caches: block tables, and the ways between pages and rows that lie in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .problem import Attention, AttentionInputs

JUNK = 8.0
"""Standard deviation of the numbers in places of a pool that belong to nobody."""


def block_table(problem: Attention, lengths: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """int32 [batch, pages of a full row] on the generator's device: pages in random order, 0 past the last page of each row."""
    device = generator.device
    order = torch.randperm(problem.kv_shape[0], generator=generator, device=device)[: problem.batch * problem.pages]
    taken = -(-torch.tensor(lengths, device=device) // problem.page_size)
    inside = torch.arange(problem.pages, device=device) < taken[:, None]
    return (order.view(problem.batch, problem.pages) * inside).int()


def gathered(pool: torch.Tensor, table: torch.Tensor, kv_len: int) -> torch.Tensor:
    """[pages, kv_heads, page_size, head_dim] and a block table -> [batch, kv_heads, kv_len, head_dim]."""
    rows = pool[table].transpose(1, 2)  # [batch, kv_heads, pages, page_size, head_dim]
    return rows.flatten(2, 3)[:, :, :kv_len]


def paged(problem: Attention, dense: AttentionInputs, seed: int) -> AttentionInputs:
    """Inputs whose rows lie in one piece, moved into pages in an order that follows `seed`; unowned places hold junk."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [problem.kv_len] * problem.batch if dense.lengths is None else dense.lengths.tolist()
    table = block_table(problem, lengths, generator).to(dense.q.device)
    k, v = (_pooled(problem, tensor, table, lengths, generator) for tensor in (dense.k, dense.v))
    return dense.replace(k=k, v=v, block_table=table)


def _pooled(
    problem: Attention, dense: torch.Tensor, table: torch.Tensor, lengths: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    junk = (torch.randn((1, *problem.kv_shape[1:]), generator=generator) * JUNK).to(dense)
    pool = junk.repeat(problem.kv_shape[0], 1, 1, 1)
    for row, length in enumerate(lengths):
        pages, rest = divmod(length, problem.page_size)
        if pages:
            whole = dense[row, :, : pages * problem.page_size]
            shape = (problem.kv_heads, pages, problem.page_size, problem.head_dim)
            pool[table[row, :pages].long()] = whole.reshape(shape).transpose(0, 1)
        if rest:
            pool[int(table[row, pages]), :, :rest] = dense[row, :, length - rest : length]
    return pool
