"""Block-sparse attention on a CPU: the kept blocks of keys and values copied side by side, then torch's attention over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ._sparse_blocks import KEYS, Choice, Span, folded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..registry import Run
    from .problem import Attention, AttentionInputs


@dataclass(frozen=True)
class Rows:
    """Batch rows that have as many keys each."""

    at: slice
    length: int
    """Valid keys."""
    past: int
    """Position of the first query."""

    @classmethod
    def of(cls, problem: Attention, lengths: torch.Tensor | None) -> Iterator[Rows]:
        """All rows at once without lengths, else one by one."""
        if lengths is None:
            yield cls(slice(None), problem.kv_len, problem.kv_len - problem.q_len)
            return
        for row, length in enumerate(lengths.tolist()):
            yield cls(slice(row, row + 1), length, (length if problem.ragged else problem.kv_len) - problem.q_len)


def through_blocks(problem: Attention, choice: Choice, queries: int) -> Run:
    """inputs -> output [batch, heads, q_len, head_dim]: blocks are chosen, copied and attended to in every call."""
    shape = (problem.batch, problem.heads, problem.q_len, problem.head_dim)
    as_rows = (problem.batch, problem.kv_heads, problem.group, problem.head_dim) if folded(problem) else shape

    def run(inputs: AttentionInputs) -> torch.Tensor:
        q, k, v = inputs.q.reshape(as_rows), _whole_blocks(inputs.k), _whole_blocks(inputs.v)
        output = torch.empty(as_rows, dtype=q.dtype)
        for rows in Rows.of(problem, inputs.lengths):
            part = _Part(q[rows.at], k[rows.at], v[rows.at], rows, problem.scale, causal=problem.triangular)
            part.attend(choice, queries, output[rows.at])
        return output.view(shape)

    return run


def _whole_blocks(x: torch.Tensor) -> torch.Tensor:
    """Keys or values in one piece, with zeros up to a multiple of the block."""
    missing = -x.shape[2] % KEYS
    return F.pad(x, (0, 0, 0, missing)) if missing else x.contiguous()  # padding by nothing would copy, too


def means(x: torch.Tensor, size: int) -> torch.Tensor:
    """float32 [batch, heads, blocks, head_dim]: of each block of so many tokens, the last one being what is left."""
    whole = x.shape[2] // size * size
    blocks = (*x.shape[:2], -1, size, x.shape[3])
    found = [x[:, :, :whole].reshape(blocks).mean(3, dtype=torch.float32)] if whole else []
    found += [x[:, :, whole:].mean(2, keepdim=True, dtype=torch.float32)] if whole < x.shape[2] else []
    return torch.cat(found, 2)


@dataclass(frozen=True)
class _Part:
    """Batch rows with as many keys each: q [batch, heads, queries, head_dim], k and v in whole blocks."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    rows: Rows
    scale: float
    causal: bool

    def attend(self, choice: Choice, queries: int, output: torch.Tensor) -> None:
        """Write the output, block of queries by block."""
        estimates, (_, _, count, head_dim) = self._estimates(queries), self.q.shape
        heads, group = estimates.shape[0], self.q.shape[1] // self.k.shape[1]
        keys, values = (x.view(-1, KEYS * head_dim) for x in (self.k, self.v))
        firsts = (torch.arange(heads) // group * (self.k.shape[2] // KEYS))[:, None]
        for block in range(estimates.shape[1]):
            asked = {"q_len": count, "past": self.rows.past, "length": self.rows.length}
            span = Span.of(block, queries, **asked, causal=self.causal)
            blind = max(0, -span.first) if self.causal else 0  # rows that stand before all keys
            here = slice(block * queries + blind, min((block + 1) * queries, count))
            output[:, :, block * queries : (count if span.end == 0 else here.start)] = 0
            if span.end == 0:
                continue
            q = self.q[:, :, here].flatten(0, 1)
            found = torch.empty_like(q)
            for which, numbers in chosen(estimates[:, block, : span.end], span, choice):
                at = (numbers + firsts[which]).flatten()
                size = (1, len(numbers), -1, head_dim)
                k, v = keys.index_select(0, at).view(size), values.index_select(0, at).view(size)
                mask = self._mask(numbers, span, blind, q.shape[1])
                found[which] = F.scaled_dot_product_attention(q[which][None], k, v, attn_mask=mask, scale=self.scale)[0]
            output[:, :, here] = found.view(output[:, :, here].shape)

    def _estimates(self, queries: int) -> torch.Tensor:
        """float32 [batch · heads, blocks of queries, blocks of keys]: logarithms of what mean queries give to blocks of mean keys."""
        q, k = means(self.q, queries), means(self.k[:, :, : self.rows.length], KEYS)
        batch, heads, blocks, head_dim = q.shape
        found = q.reshape(batch, k.shape[1], -1, head_dim) @ k.mT * self.scale
        if last := self.rows.length % KEYS:
            found[..., -1] += math.log(last / KEYS)
        return found.view(batch * heads, blocks, -1)

    def _mask(self, numbers: torch.Tensor, span: Span, blind: int, queries: int) -> torch.Tensor | None:
        """bool [1, 1 or heads, queries, keys]: what is seen of the chosen blocks [heads, kept]; None where it is all."""
        edged = span.own < span.end
        if not edged and self.rows.length % KEYS == 0:
            return None
        # blocks before a query's own ones are seen whole, and its own ones are chosen for every head
        numbers = numbers[:1] if edged else numbers
        at = (numbers[..., None] * KEYS + torch.arange(KEYS)).flatten(1)[:, None]
        seen = at < self.rows.length
        if edged:
            seen = seen & (at <= span.first + blind + torch.arange(queries)[:, None])
        return seen.expand(-1, queries, -1)[None]


def chosen(estimates: torch.Tensor, span: Span, choice: Choice) -> Iterator[tuple[torch.Tensor | slice, torch.Tensor]]:
    """(heads, numbers of their blocks, ascending: int64 [heads, kept]) of heads that keep as many, from estimates [heads, visible]."""
    first = estimates.clone()
    first[:, 0] = first[:, span.own :] = torch.inf
    order = first.sort(descending=True, stable=True).indices  # of equal blocks the first: topk takes any
    if not choice.mass:
        yield slice(None), order[:, : span.kept(choice)].sort().values
        return
    mass = estimates.softmax(-1).gather(1, order)
    counts = (mass.cumsum(-1) - mass < choice.mass).sum(-1).clamp(min=span.must)
    for count in sorted(set(counts.tolist())):
        which = (counts == count).nonzero()[:, 0]
        yield which, order[which, :count].sort().values
