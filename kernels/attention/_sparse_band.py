"""The first keys and a window around each query: how many of both, and attention to them on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ._sparse_gather import Rows

if TYPE_CHECKING:
    from ..registry import Run
    from .problem import Attention, AttentionInputs

SINKS = 64
"""First keys that every query sees, at most: a tile's worth. Four are enough by StreamingLLM (arXiv 2309.17453)."""
MASKS = 64
"""Different masks that are kept: a few beside those at both ends, of rows with lengths of their own some for each."""
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
    """inputs -> output [batch, heads, q_len, head_dim], block of queries by block.

    Masks follow from where queries and keys stand to one another, which is the same for most blocks: they are made once.
    """
    mask = lru_cache(MASKS)(_Mask(band, causal=problem.triangular, dtype=getattr(torch, problem.dtype)))

    def run(inputs: AttentionInputs) -> torch.Tensor:
        output = torch.empty(inputs.q.shape, dtype=inputs.q.dtype)
        for rows in Rows.of(problem, inputs.lengths):
            q, k, v = (tensor[rows.at] for tensor in (inputs.q, inputs.k, inputs.v))
            for start in range(0, problem.q_len, QUERIES):
                stop = min(start + QUERIES, problem.q_len)
                first, last = start + rows.past, stop - 1 + rows.past
                apart, lo, hi = band.reach(first, last, rows.length, causal=problem.triangular)
                blind = max(0, min(stop - start, -first)) if problem.triangular else 0  # queries that stand before all keys
                output[rows.at, :, start : start + blind] = 0
                if start + blind == stop:
                    continue
                seen = mask(apart, first + blind - lo, stop - start - blind, hi - lo)
                keys, values = (torch.cat([x[:, :, :apart], x[:, :, lo:hi]], 2) if apart else x[:, :, lo:hi] for x in (k, v))
                found = F.scaled_dot_product_attention(
                    q[:, :, start + blind : stop], keys, values, attn_mask=seen, enable_gqa=problem.grouped
                )
                output[rows.at, :, start + blind : stop] = found
        return output

    return run


@dataclass(frozen=True)
class _Mask:
    """What is added to scores: 0 for keys that are seen, -inf for others."""

    band: Band
    causal: bool
    dtype: torch.dtype

    def __call__(self, apart: int, first: int, queries: int, keys: int) -> torch.Tensor:
        """[queries, apart + keys]: of `apart` first keys, all of them seen, and of others, which begin `first` before the first query.

        Where none stand apart, the others are the keys from the very first on.
        """
        key = torch.arange(keys)
        at = torch.arange(first, first + queries)[:, None]
        seen = (key > at - self.band.window) & (key < at + self.band.window)
        seen = seen if apart else seen | (key < self.band.sinks)
        seen = seen & (key <= at) if self.causal else seen
        seen = torch.cat([torch.ones(queries, apart, dtype=torch.bool), seen], 1)
        return torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, -torch.inf)
