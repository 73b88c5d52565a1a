"""Which blocks of keys a block of queries attends to: what is visible, what stays in any case, and how many are kept. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .problem import Attention

KEYS = 64
"""Keys of a block."""
QUERIES = {"cpu": 256, "cuda": 128}
"""Queries of a block. On a CPU torch's attention works in parts of 64 queries from 192 on, and of 32 below: 256 took 75 ms where 128
took 97. On a GPU it is what one program holds."""
FEWEST = 16
"""Blocks of keys below which there is too little to choose among."""


@dataclass(frozen=True)
class Choice:
    """How many of the visible blocks are kept: one of so many `parts`, or as many as have a `mass` of the estimated weight."""

    parts: int = 0
    mass: float = 0.0

    def __str__(self) -> str:
        return f"{self.mass:.0%} of the estimated mass" if self.mass else f"1/{self.parts} of the visible blocks"


@dataclass(frozen=True)
class Span:
    """The blocks of keys that some query of a block sees are 0 … end - 1. The first one, and those from `own` on, stay in any case."""

    first: int
    """Position of the first query."""
    own: int
    """Causal: the first block that holds a query's own position, `end` where all of them lie behind the keys. Else `end`."""
    end: int

    @classmethod
    def of(cls, block: int, queries: int, *, q_len: int, past: int, length: int, causal: bool) -> Span:
        """That of a block of so many queries, the first of which stands at block · queries + past."""
        first, last = block * queries + past, min((block + 1) * queries, q_len) - 1 + past
        seen = max(0, min(length, last + 1)) if causal else length
        end = -(-seen // KEYS)
        return cls(first, min(max(first, 0) // KEYS, end) if causal else end, end)

    @property
    def must(self) -> int:
        """Blocks that stay in any case."""
        return self.end - self.own + (self.own > 0 and self.end > 0)

    def kept(self, choice: Choice) -> int:
        """Blocks that a fixed share keeps; of a share of the mass it is all that there are, at most."""
        return self.end if choice.mass else max(self.must, -(-self.end // choice.parts))


def folded(problem: Attention) -> bool:
    """Whether the heads of a group are rows of one head, with one choice of blocks for all: where each has a single query."""
    return problem.q_len == 1


def spans(problem: Attention, queries: int, length: int) -> Iterator[Span]:
    """Those of all blocks of queries of one head, in a row with so many valid keys."""
    past = (length if problem.ragged else problem.kv_len) - problem.q_len
    for block in range(-(-problem.q_len // queries)):
        yield Span.of(block, queries, q_len=problem.q_len, past=past, length=length, causal=problem.triangular)


def kept_share(problem: Attention, choice: Choice, queries: int) -> float:
    """Blocks kept, of those that are visible: more than the share asked for where what stays in any case is more."""
    found = [span for length in problem.lengths() for span in spans(problem, queries, length)]
    return sum(span.kept(choice) for span in found) / max(1, sum(span.end for span in found))


def too_few(problem: Attention) -> str | None:
    """Why so few keys are not worth choosing among; None when there are enough."""
    blocks = -(-problem.kv_len // KEYS)
    if blocks < FEWEST:
        return f"has {blocks} blocks of {KEYS} keys: fewer than {FEWEST} leave too little to choose among"
    return None
