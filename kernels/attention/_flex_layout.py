"""How FlexAttention sees a problem: heads of a group as rows of one head, and a pool of pages as one long row of keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .problem import Attention

BLOCK = 128
"""Most rows and columns of one block of the map on a GPU: FlexAttention's tiles there divide it."""
CPU_ROWS, CPU_KEYS = 128, 512
"""Rows and columns of a block on a CPU, which is what is multiplied at once."""
CPU_FINE = 64
"""Rows and columns on a CPU where blocks follow a diagonal. Measured: 5.9 ms instead of 6.5 with 128 at 1×8×512×64 causal."""
DECODED = 128
"""FlexAttention has a kernel for fewer query rows than this, which splits the keys among programs."""
LEAST = 16
"""Keys of the smallest tile in Triton."""


@dataclass(frozen=True)
class Layout:
    """The views of q, k, v that FlexAttention is given, and what its batch row, head and query numbers mean in the problem.

    - `packed`: the query heads that share a key-value head are rows of one head, so that keys are read once for all of them.
    - `pooled`: all pages of all heads are one row of keys of one head, and every key-value head of every batch row is a batch row
      of queries; which pages it sees is told by the map of blocks alone. Our pools hold the heads of a page one after the
      other, so that no strides make one row of keys of a head.
    """

    problem: Attention
    threads: int
    """Of a CPU; 0 on a GPU."""

    @property
    def cpu(self) -> bool:
        return self.threads > 0

    @property
    def pooled(self) -> bool:
        return self.problem.page_size > 0

    @property
    def packed(self) -> bool:
        return self.problem.grouped and self.problem.group * self.problem.q_len < DECODED and not self.split

    @property
    def split(self) -> bool:
        """On a CPU: keys are split among threads, which takes a single query row per head and pays where heads are few.

        Where parts of the keys are hidden from some rows or by data, it is not right: a part of which nothing is seen counts
        as one whose largest score is 0, beside which scores below -88 vanish.
        """
        problem = self.problem
        few = 2 * problem.batch * problem.kv_heads <= self.threads
        return few and problem.q_len == 1 and problem.features <= {"causal", "window", "softcap"}

    @property
    def rows(self) -> int:
        """Query rows per head."""
        return self.problem.q_len * (self.problem.group if self.packed else 1)

    @property
    def batch(self) -> int:
        """Batch rows of queries."""
        return self.problem.batch * (self.problem.kv_heads if self.pooled else 1)

    @property
    def heads(self) -> int:
        """Heads of queries."""
        heads = self.problem.kv_heads if self.packed else self.problem.heads
        return heads // self.problem.kv_heads if self.pooled else heads

    @property
    def shared(self) -> bool:
        """Several query heads still share a key-value head: FlexAttention has to be told."""
        return self.problem.grouped and not self.packed

    @property
    def keys(self) -> int:
        """Keys in one row, as FlexAttention sees them."""
        return math.prod(self.problem.kv_shape[:3]) if self.pooled else self.problem.kv_len

    @property
    def fine(self) -> bool:
        return self.problem.window > 0 or (self.problem.triangular and not self.short)

    @property
    def q_block(self) -> int:
        """Query rows in one block of the map."""
        return (CPU_FINE if self.fine else CPU_ROWS) if self.cpu else BLOCK

    @property
    def kv_block(self) -> int:
        """Keys in one block of the map; those of one page where keys are paged, or a part of it."""
        page = self.problem.page_size
        if not self.cpu:
            return math.gcd(page, BLOCK) if page else BLOCK
        if page:
            return page if page <= CPU_KEYS else math.gcd(page, CPU_KEYS)
        return CPU_FINE if self.fine else BLOCK if self.split else CPU_KEYS

    @property
    def short(self) -> bool:
        """FlexAttention's kernel for decoding takes it."""
        return self.rows < DECODED and not (self.shared and self.rows * self.problem.group > DECODED)

    def queries(self, q: torch.Tensor) -> torch.Tensor:
        """[batch, heads, q_len, head_dim] of the problem -> of the layout."""
        return q.reshape(self.batch, self.heads, self.rows, -1)

    def cached(self, k: torch.Tensor) -> torch.Tensor:
        """Keys or values, or the pool of them -> as one row of keys."""
        return k.reshape(1, 1, self.keys, -1) if self.pooled else k

    def meaning(self, b: Any, h: Any, r: Any) -> tuple[Any, Any, Any]:
        """Row, head and query of the layout -> batch row, head and query of the problem; numbers or index tensors."""
        problem = self.problem
        shared, query = h, r
        if self.pooled:
            b, shared = b // problem.kv_heads, b % problem.kv_heads
        if self.packed:
            inner, query = (r, r * 0) if problem.q_len == 1 else (r // problem.q_len, r % problem.q_len)
            return b, shared * problem.group + inner, query
        return b, shared * problem.group + h if self.pooled else h, query
