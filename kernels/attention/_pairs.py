"""How many pairs of a query and a key an attention problem has, and how many keys anybody sees: whole numbers in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .problem import Attention


def twice_pairs(problem: Attention, length: int) -> int:
    """Twice the visible pairs of one head in a row with so many valid keys, boolean masks left out.

    Without a window the triangle of a causal problem counts as its area, as FLOPs of attention are counted everywhere: it
    starts at kv_len - q_len keys and counts half: q·kv - q²/2 for q ≤ kv and kv²/2 otherwise, cut off at the row's length.
    With a window the pairs are counted one by one.
    """
    end = length if problem.ragged else problem.kv_len
    past = end - problem.q_len
    if problem.window:
        last = past if problem.causal else past + problem.window - 1
        return 2 * (_below(problem.q_len, last, length) - _below(problem.q_len, past - problem.window, length))
    seeing = min(problem.q_len, end) if problem.triangular else problem.q_len
    cut = max(0, length - (end - seeing)) if problem.triangular else 0
    return 2 * seeing * length - cut * cut


def _below(queries: int, last: int, length: int) -> int:
    """Pairs in which query i sees the keys 0 … i + last of `length` keys: the sum of clamp(i + last + 1, 0, length)."""
    first = min(queries, max(0, -last))
    full = min(queries, max(first, length - last - 1))
    growing = full - first
    return growing * (first + last + 1) + growing * (growing - 1) // 2 + (queries - full) * length


def keys_read(problem: Attention, length: int) -> int:
    """Keys of a row with so many valid ones that some query sees by its window; all of them without one."""
    if not problem.window:
        return length
    past = (length if problem.ragged else problem.kv_len) - problem.q_len
    end = min(length, past + problem.q_len + (0 if problem.causal else problem.window - 1))
    return max(0, end - max(0, past - problem.window + 1))
