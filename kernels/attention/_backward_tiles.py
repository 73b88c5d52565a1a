"""Tiles of the backward kernels, and which queries see a tile of keys: arithmetic without torch or Triton."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """How the work of one backward kernel is cut, for how many warps, with how many stages of loads in flight."""

    bt: int
    """Queries."""
    bs: int
    """Keys."""
    warps: int
    stages: int


@dataclass(frozen=True)
class Cut:
    """What is launched for a problem."""

    keys: Tile
    """Of the kernel that holds keys and goes through queries."""
    queries: Tile | None = None
    """Of the kernel that holds queries and goes through keys; None: the other one adds up their gradient in memory, too."""


HOPPER = {
    64: Cut(Tile(64, 128, 8, 2)),
    128: Cut(Tile(64, 128, 8, 2)),
    256: Cut(Tile(32, 64, 8, 2)),
}


def seers(
    first: int, keys: int, rows: int, queries: int, past: int, length: int, window: int, causal: int, windowed: int
) -> tuple[int, int, int, int]:
    """(lo, whole, until, hi) for the keys first … first + keys - 1: only queries of [lo, hi) see some, those of [whole, until) all.

    lo, whole and until are multiples of `rows`, save that until may be the number of queries. lo is less than hi, also where nobody sees
    any of the keys. Query i stands at i + past, keys from `length` on are hidden. Traced by Triton, too: nothing but `min` and `max` is
    called, and numbers at least 0 are divided.
    """
    last = first + keys - 1
    lo = 0
    whole = 0
    hi = queries
    until = queries
    if causal:
        lo = max(first - past, 0)
        whole = max(last - past, 0)
    elif windowed:
        lo = max(first - window + 1 - past, 0)
        whole = max(last - window + 1 - past, 0)
    if windowed:
        hi = max(min(queries, last + window - past), 1)
        until = max(min(queries, first + window - past), 0) // rows * rows
    # a tile that reaches beyond the last key that is seen is masked for everybody
    if last >= length:
        until = 0
    lo = min(lo, hi - 1) // rows * rows
    whole = (whole + rows - 1) // rows * rows
    return lo, whole, until, hi
