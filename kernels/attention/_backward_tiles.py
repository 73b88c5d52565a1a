"""Tiles of the backward kernels, and which queries see a tile of keys: arithmetic without torch or Triton."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._tiles import require_launch, require_powers_of_two, require_range


@dataclass(frozen=True)
class Tile:
    """How the work is cut, for how many warps, with how many stages of loads in flight."""

    bt: int
    """Queries."""
    bs: int
    """Keys."""
    warps: int
    stages: int
    twice: bool = False
    """The gradient of the queries comes from a kernel of its own, with `turned` of this tile, and not from sums in memory: seven products
    for each pair of tiles and not five, but every number is written once, and the same in every call."""
    l2_eighths: int = 4
    """How much of the L2 cache queries and gradients of the heads that are worked on side by side may fill; causal problems only."""

    def __post_init__(self) -> None:
        require_powers_of_two(16, 256, bt=self.bt, bs=self.bs)
        require_launch(self.warps, self.stages)
        require_range(0, 8, l2_eighths=self.l2_eighths)

    def __str__(self) -> str:
        words = [f"{self.bt}×{self.bs} w{self.warps} s{self.stages}{' twice' if self.twice else ''}"]
        words += [f"{self.l2_eighths}/8 of L2"] if self.l2_eighths != 4 else []
        return ", ".join(words)

    @property
    def turned(self) -> tuple[int, int]:
        """(queries, keys) of the kernel that holds queries and goes through keys."""
        return self.bs, self.bt


HOPPER = {
    64: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 2)),
    128: (Tile(32, 64, 4, 3), Tile(64, 128, 8, 2)),
    256: (Tile(64, 64, 8, 2, twice=True), Tile(64, 64, 8, 2, twice=True)),
}
"""16-bit tiles by head_dim for few and for many keys on sm_90.

Both gradients of 128 keys fill half of the registers of 8 warps at head_dim 128, and leave no room for more than 64 queries. At 256
sums in memory would leave room for 32, with which products wait for shared memory half of the time.
"""

BURDENED = {
    64: (Tile(64, 64, 4, 3), Tile(64, 128, 8, 3)),
    128: (Tile(32, 64, 4, 3), Tile(64, 64, 8, 2)),
    256: (Tile(32, 64, 8, 2), Tile(32, 64, 8, 2)),
}
"""On sm_90 with a softcap, a bias or a mask: slopes or another tile pass through registers."""

BLACKWELL = {
    64: (Tile(64, 64, 4, 3), Tile(64, 128, 8, 2)),
    128: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    256: (Tile(32, 64, 8, 2), Tile(32, 64, 8, 2)),
}
"""The same on sm_100: accumulators lie in its tensor memory, which holds 512 columns."""

AMPERE = {
    64: (Tile(32, 64, 4, 2), Tile(32, 128, 8, 2)),
    128: (Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
    256: (Tile(16, 64, 8, 2), Tile(16, 64, 8, 2)),
}
"""The same for all other cards: they fit 99 KB, which consumer cards have, too."""

FULL = {
    64: (Tile(32, 32, 8, 2), Tile(32, 32, 8, 2)),
    128: (Tile(16, 32, 8, 2), Tile(16, 32, 8, 2)),
    256: (Tile(16, 16, 8, 2), Tile(16, 16, 8, 2)),
}
"""float32 tiles: full precision does without tensor cores and works on registers."""


def offered(head_dim: int, item_bytes: int, capability: tuple[int, int], *, burdened: bool = False) -> tuple[Tile, Tile]:
    """The tiles for few and for many keys; `burdened`: for problems with a softcap, a bias or a mask."""
    table = FULL if item_bytes == 4 else {9: BURDENED if burdened else HOPPER, 10: BLACKWELL}.get(capability[0], AMPERE)
    return next(table[width] for width in sorted(table) if head_dim <= width)


def tile(
    keys: int, sequences: int, head_dim: int, item_bytes: int, capability: tuple[int, int], multiprocessors: int, *, burdened: bool = False
) -> Tile:
    """The tile for so many keys in each of `sequences` = batch · kv_heads: the large one where it keeps every multiprocessor busy."""
    few, many = offered(head_dim, item_bytes, capability, burdened=burdened)
    return many if keys > few.bs and sequences * -(-keys // many.bs) >= multiprocessors else few


def by_pointers(cut: Tile, head_dim: int) -> Tile:
    """The 16-bit tile for tensors that TMA does not take, in place of one that was meant for it: addresses take registers, too."""
    bt, bs = (64, 128) if head_dim <= 64 else (64, 64) if head_dim <= 128 else (32, 64)
    return replace(cut, bt=min(cut.bt, bt), bs=min(cut.bs, bs), warps=8)


def for_odd_rows(cut: Tile, head_dim: int) -> Tile:
    """The 16-bit tile for rows that do not begin on multiples of 16 numbers, in place of another: each number has an address of its own."""
    bt, bs = (32, 64) if head_dim <= 128 else (16, 32)
    return replace(cut, bt=min(cut.bt, bt), bs=min(cut.bs, bs), warps=8, stages=2)


def shares(group: int, programs: int, multiprocessors: int) -> int:
    """Programs among which the heads of a group are divided, evenly: 1, or as few as keep every multiprocessor busy."""
    divisors = [count for count in range(1, group + 1) if group % count == 0]
    return next((count for count in divisors if count * programs >= multiprocessors), group)


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
