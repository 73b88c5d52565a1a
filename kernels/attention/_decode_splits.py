"""Tiles of the decode kernel, which keys a program reads, and how many programs share one cache: arithmetic without torch or Triton."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .._tiles import require_launch, require_powers_of_two, require_range

AIM = 2
"""Programs on a multiprocessor that splits are made for: one alone does not keep the memory busy while it computes."""


@dataclass(frozen=True)
class Tile:
    """How the work is cut, for how many warps, with how many stages of loads in flight."""

    rows: int
    """Pairs of a query token and a head of one group."""
    keys: int
    warps: int
    stages: int
    aim: int = AIM
    """Programs on a multiprocessor that splits are made for."""

    def __post_init__(self) -> None:
        require_powers_of_two(1, 128, rows=self.rows)
        require_powers_of_two(16, 256, keys=self.keys)
        require_launch(self.warps, self.stages)
        require_range(1, 8, aim=self.aim)

    def __str__(self) -> str:
        return f"{self.rows}×{self.keys} w{self.warps} s{self.stages}{f', {self.aim} resident' if self.aim != AIM else ''}"

    @property
    def hides_only_at_edges(self) -> bool:
        """Tiles that every row sees whole go without masks, in a loop of their own.

        Not so for few rows: they wait for the memory anyway, and each loop fills its pipeline anew.
        """
        return self.rows >= 64


FULL = {64: Tile(16, 32, 4, 3), 128: Tile(16, 16, 4, 3), 256: Tile(16, 16, 8, 3)}
"""float32 tiles by head_dim, for all cards: full precision does without tensor cores, and so with fewer rows where there are fewer."""

HOPPER = {
    64: (Tile(16, 64, 4, 4), Tile(32, 64, 4, 4), Tile(64, 64, 4, 3)),
    128: (Tile(16, 64, 4, 3), Tile(32, 64, 8, 3), Tile(64, 64, 4, 2)),
    256: (Tile(16, 32, 4, 3), Tile(32, 32, 8, 3), Tile(64, 32, 8, 2)),
}
"""16-bit tiles by head_dim for sm_90 and sm_100. Some 50 KB of keys and values are on their way while others are computed."""

AMPERE = {
    64: (Tile(16, 64, 4, 3), Tile(32, 64, 4, 3), Tile(64, 64, 4, 2)),
    128: (Tile(16, 32, 4, 3), Tile(32, 32, 4, 3), Tile(64, 32, 4, 2)),
    256: (Tile(16, 32, 4, 2), Tile(32, 32, 4, 2), Tile(64, 32, 8, 2)),
}
"""16-bit tiles for all other cards: several programs share the 100 KB of a consumer card's multiprocessor."""

MOST = 128
"""Splits of one cache at most: what the combine kernel holds at once."""

SHORT = 512
"""Keys up to which nobody splits: combining takes as long (FlashAttention-3 leaves 4 tiles of 128 together)."""

LEAST_TILES = 2
"""Tiles of keys in a split at least: the loads of one are in flight while another is computed."""


def offered(head_dim: int, item_bytes: int, capability: tuple[int, int], *, biased: bool = False) -> tuple[Tile, ...]:
    """All tiles that `tile` may answer with, by rising rows; `biased`: for problems with a bias or a mask."""
    width = next(width for width in sorted(HOPPER) if head_dim <= width)
    if item_bytes == 4:
        return tuple(replace(FULL[width], rows=rows) for rows in (1, 2, 4, 8, 16))
    table = HOPPER if capability[0] in (9, 10) else AMPERE
    # what a bias adds to large tiles does not fit the registers of 4 warps
    return tuple(replace(cut, warps=8) if biased and cut.rows >= 64 and width > 64 else cut for cut in table[width])


def tile(rows: int, head_dim: int, item_bytes: int, capability: tuple[int, int], *, biased: bool = False) -> Tile:
    """The tile for so many rows: query tokens times heads of a group. The smallest that holds them all, or the largest."""
    choice = offered(head_dim, item_bytes, capability, biased=biased)
    return next((cut for cut in choice if rows <= cut.rows), choice[-1])


def for_odd_rows(cut: Tile, head_dim: int) -> Tile:
    """The 16-bit tile for rows that do not begin on multiples of 16 numbers, in place of another: each number has an address of its own."""
    if head_dim <= 64:
        return replace(cut, keys=min(cut.keys, 32), warps=8 if cut.rows >= 64 else cut.warps)
    if head_dim > 128:
        return replace(cut, rows=min(cut.rows, 32), keys=min(cut.keys, 32), warps=8)
    return replace(cut, keys=16 if cut.rows >= 64 else min(cut.keys, 32), warps=8 if cut.rows >= 32 else cut.warps)


def shared_bytes(cut: Tile, head_dim: int, item_bytes: int, capability: tuple[int, int]) -> int:
    """Shared memory that a program takes, about: keys and values in flight, queries and weights."""
    width = max(16, 1 << (head_dim - 1).bit_length())
    # asynchronous tensor cores read what the others first copy to registers
    buffers = cut.stages if cut.rows >= 64 and item_bytes == 2 and capability[0] in (9, 10) else cut.stages - 1
    return item_bytes * (2 * buffers * cut.keys * width + cut.rows * (width + cut.keys))


def resident(cut: Tile, head_dim: int, item_bytes: int, capability: tuple[int, int], registers: int = 168) -> int:
    """Programs that a multiprocessor holds at once, by shared memory, registers (per thread) and warps; at least 1."""
    room = {(8, 0): 164, (8, 7): 164}.get(capability, 228 if capability[0] in (9, 10) else 100) * 1024
    by_memory = room // (shared_bytes(cut, head_dim, item_bytes, capability) + 1024)
    return max(1, min(by_memory, 65536 // (registers * 32 * cut.warps), 48 // cut.warps))


def splits(batch: int, kv_heads: int, row_blocks: int, kv_len: int, cut: Tile, multiprocessors: int, resident: int) -> int:
    """Programs that share the keys of one block of rows; kv_len: keys that such a block sees, fewer than the cache with a window.

    As FlashAttention-3 chooses it (hopper/heuristics.h): 1 when the blocks fill four fifths of the places for programs, else the
    smallest within 85 % of the best use of whole waves. Places are counted by residents, and whole tiles are waves, too.
    """
    programs, tiles = batch * kv_heads * row_blocks, -(-kv_len // cut.keys)
    slots = multiprocessors * max(1, min(resident, cut.aim))
    most = min(MOST, tiles // LEAST_TILES)
    if programs >= 0.8 * slots or kv_len <= SHORT or most <= 1:
        return 1

    def efficiency(count: int) -> float:
        waves = programs * count / slots
        return waves / math.ceil(waves) * tiles / (count * -(-tiles // count))

    used = [efficiency(count) for count in range(1, most + 1)]
    return next(count for count, use in enumerate(used, 1) if use >= 0.85 * max(used))


def seen(first: int, last: int, length: int, window: int, causal: int, windowed: int) -> tuple[int, int, int, int]:
    """(begin, end, whole, until) for queries at the positions first … last: some see keys of [begin, end), all see [whole, until).

    Traced by Triton, too, so that kernel and tests share it: numbers at least 0 are divided, and nothing but `min` and `max` is called.
    """
    begin = 0
    whole = 0
    end = length
    until = length
    if windowed:
        begin = max(first - window + 1, 0)
        whole = max(last - window + 1, 0)
    if causal:
        end = max(min(length, last + 1), 0)
        until = max(min(length, first + 1), 0)
    elif windowed:
        end = max(min(length, last + window), 0)
        until = max(min(length, first + window), 0)
    return begin, end, whole, until


def stretch(begin: int, end: int, keys: int, splits: int, index: int) -> tuple[int, int]:
    """The keys [lo, hi), multiples of `keys`, that split `index` of `splits` reads of [begin, end). Traced by Triton, too.

    Sizes differ by one tile at most, so that a short row of a ragged cache is shared by as many programs as a long one.
    """
    first = begin // keys
    tiles = max((end + keys - 1) // keys - first, 0)
    lo = first + tiles * index // splits
    hi = first + tiles * (index + 1) // splits
    return lo * keys, hi * keys
