"""The first keys and a window around each query: how many of both, and attention to them on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ._sparse_gather import Rows

if TYPE_CHECKING:
    from ..registry import Run
    from .problem import Attention, AttentionInputs

SINKS = 64
"""First keys that every query sees, at most: a tile's worth. Four are enough by StreamingLLM (arXiv 2309.17453)."""
QUERIES = 256
"""Queries that are worked on at once: torch's attention is at its best from 192 on."""


@dataclass(frozen=True)
class Band:
    """What a query sees: keys before `sinks`, and those less than `window` away from it, of which `causal` hides later ones."""

    sinks: int
    window: int

    @classmethod
    def of(cls, problem: Attention, parts: int) -> Band:
        """Both together are one of so many parts of the keys; of few keys a quarter of that are first ones."""
        kept = problem.kv_len // parts
        sinks = max(1, min(SINKS, kept // 4))
        backwards = problem.triangular or problem.q_len == 1  # a single query stands after all keys
        return cls(sinks, max(1, kept - sinks if backwards else (kept - sinks + 1) // 2))

    def reach(self, first: int, last: int, length: int, *, causal: bool) -> tuple[int, int, int]:
        """(apart, from, to): what queries at positions first … last see lies in the keys before `apart`, and in those from … to - 1."""
        end = max(0, min(length, last + (1 if causal else self.window)))
        begin = min(max(first - self.window + 1, 0), end)
        sinks = min(self.sinks, length)
        return (sinks, begin, end) if begin > sinks else (0, 0, max(end, sinks))


def keys_attended(problem: Attention, band: Band) -> int:
    """Keys multiplied with on a CPU, summed over all queries of one head, what a mask hides among them included."""
    found = 0
    for length in problem.lengths():
        past = (length if problem.ragged else problem.kv_len) - problem.q_len
        for start in range(0, problem.q_len, QUERIES):
            stop = min(start + QUERIES, problem.q_len)
            apart, lo, hi = band.reach(start + past, stop - 1 + past, length, causal=problem.triangular)
            found += (stop - start) * (apart + hi - lo)
    return found


def through_band(problem: Attention, band: Band) -> Run:
    """inputs -> output [batch, heads, q_len, head_dim], block of queries by block."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        output = torch.empty(inputs.q.shape, dtype=inputs.q.dtype)
        for rows in Rows.of(problem, inputs.lengths):
            q, k, v = (tensor[rows.at] for tensor in (inputs.q, inputs.k, inputs.v))
            for start in range(0, problem.q_len, QUERIES):
                stop = min(start + QUERIES, problem.q_len)
                output[rows.at, :, start:stop] = _attended(problem, band, rows, q[:, :, start:stop], k, v, start)
        return output

    return run


def _attended(problem: Attention, band: Band, rows: Rows, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int) -> torch.Tensor:
    """The output of queries that begin with number `start`."""
    first, count = start + rows.past, q.shape[2]
    blind = max(0, min(count, -first)) if problem.triangular else 0  # queries that stand before all keys
    if blind == count:
        return torch.zeros_like(q)
    apart, lo, hi = band.reach(first, first + count - 1, rows.length, causal=problem.triangular)
    at = torch.arange(first + blind, first + count)[:, None]
    keys = torch.cat([torch.arange(apart), torch.arange(lo, hi)])
    visible = (keys < band.sinks) | ((keys > at - band.window) & (keys < at + band.window))
    visible = visible & (keys <= at) if problem.triangular else visible
    k, v = (torch.cat([x[:, :, :apart], x[:, :, lo:hi]], 2) if apart else x[:, :, lo:hi] for x in (k, v))
    seen = F.scaled_dot_product_attention(q[:, :, blind:], k, v, attn_mask=visible, enable_gqa=problem.grouped)
    return F.pad(seen, (0, 0, blind, 0))
