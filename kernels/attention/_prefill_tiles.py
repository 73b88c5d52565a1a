"""Tiles of the prefill kernel, and the order in which they are worked on: arithmetic without torch or Triton.

What is offered compiles for the cards that it is meant for without spills, or with few where there is a bias or a mask:
`kerneldyno codegen` shows it.
"""

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
    ahead: bool = False
    """Weights × values of one block of keys run beside the softmax of the next. It takes registers."""
    persistent: int = 0
    """Programs for each multiprocessor that go through all tiles. 0: one program for each tile."""
    l2_eighths: int = 4
    """How much of the L2 cache keys and values of the heads that are worked on side by side may fill; causal problems only."""

    def __post_init__(self) -> None:
        require_powers_of_two(16, 256, bt=self.bt, bs=self.bs)
        require_launch(self.warps, self.stages)
        require_range(0, 8, persistent=self.persistent, l2_eighths=self.l2_eighths)

    def __str__(self) -> str:
        words = [f"{self.bt}×{self.bs} w{self.warps} s{self.stages}{' ahead' if self.ahead else ''}"]
        words += [f"{self.persistent} persistent"] if self.persistent else []
        words += [f"{self.l2_eighths}/8 of L2"] if self.l2_eighths != 4 else []
        return ", ".join(words)


HOPPER = {
    64: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 3, ahead=True)),
    128: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 3, ahead=True)),
    192: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3, ahead=True)),
    256: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 2)),
}
"""16-bit tiles by head_dim for few and for many queries on sm_90, in up to 227 KB of shared memory.

Three stages rather than two: Triton begins the load of a block at the end of a round, with two stages that of the very next one.
"""

BLACKWELL = {
    32: (Tile(64, 64, 8, 3), Tile(128, 128, 8, 3)),
    128: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 3)),
    192: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
    256: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 2)),
}
"""The same on sm_100, where accumulators pass from tensor memory through registers."""

AMPERE = {
    64: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
    96: (Tile(64, 32, 4, 3), Tile(128, 64, 8, 2)),
    128: (Tile(64, 32, 4, 3), Tile(128, 32, 8, 3)),
    192: (Tile(64, 32, 8, 3), Tile(64, 32, 8, 3)),
    256: (Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
}
"""The same for all other cards: they fit 99 KB, which consumer cards have, too."""

BIASED = {
    64: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3, ahead=True)),
    128: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
    192: (Tile(64, 64, 4, 2), Tile(128, 32, 8, 3, ahead=True)),
    256: (Tile(64, 32, 4, 3), Tile(64, 32, 4, 3)),
}
"""On sm_90 with a bias or a mask, of which a tile passes through registers."""

BIASED_BLACKWELL = {
    128: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
    256: (Tile(64, 32, 8, 2), Tile(128, 32, 8, 3)),
}

BIASED_AMPERE = {
    64: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    128: (Tile(64, 32, 4, 2), Tile(64, 32, 4, 2)),
    256: (Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
}

FULL = {
    64: (Tile(32, 32, 4, 2), Tile(64, 32, 8, 2)),
    96: (Tile(32, 32, 8, 2), Tile(32, 32, 8, 2)),
    128: (Tile(32, 16, 8, 2), Tile(32, 16, 8, 2)),
    256: (Tile(16, 16, 8, 2), Tile(16, 16, 8, 2)),
}
"""float32 tiles: full precision does without tensor cores and works on registers."""


def offered(head_dim: int, item_bytes: int, capability: tuple[int, int], *, biased: bool = False) -> tuple[Tile, Tile]:
    """The tiles for few and for many queries."""
    plain, with_bias = {9: (HOPPER, BIASED), 10: (BLACKWELL, BIASED_BLACKWELL)}.get(capability[0], (AMPERE, BIASED_AMPERE))
    table = FULL if item_bytes == 4 else with_bias if biased else plain
    return next(table[width] for width in sorted(table) if head_dim <= width)


def tile(
    queries: int, sequences: int, head_dim: int, item_bytes: int, capability: tuple[int, int], multiprocessors: int, *, biased: bool = False
) -> Tile:
    """The tile for so many queries in each of `sequences` = batch · heads: the large one where it keeps every multiprocessor busy."""
    few, many = offered(head_dim, item_bytes, capability, biased=biased)
    return many if queries > few.bt and sequences * -(-queries // many.bt) >= multiprocessors else few


def by_pointers(cut: Tile, head_dim: int) -> Tile:
    """The tile for tensors that TMA does not take, in place of one that was meant for it: addresses take registers, too."""
    if cut.bt < 128 and head_dim <= 192:
        return cut
    return replace(cut, bs=min(cut.bs, 64 if head_dim <= 192 else 32))


def for_odd_rows(cut: Tile, head_dim: int, *, biased: bool) -> Tile:
    """The 16-bit tile for rows that do not begin on multiples of 16 numbers, in place of another: each number has an address of its own."""
    most = 128 if head_dim <= (64 if biased else 128) else 64 if head_dim <= 160 else 32
    return replace(cut, bt=min(cut.bt, most), bs=min(cut.bs, 32), warps=8, stages=2, ahead=False)


def parts(head_dim: int) -> tuple[int, int]:
    """Powers of two, from 16 on, that hold head_dim, the second 0 where one is as small: 80 is 64 + 16, and not 128."""
    whole = max(16, 1 << (head_dim - 1).bit_length())
    if head_dim <= 64:
        return whole, 0
    rest = max(16, 1 << (head_dim - whole // 2 - 1).bit_length())
    return (whole // 2, rest) if whole // 2 + rest < whole else (whole, 0)


def heads_together(group: int, kv_len: int, head_dim: int, item_bytes: int, l2_bytes: int, *, causal: bool, eighths: int = 4) -> int:
    """Heads whose tiles are worked on side by side.

    Causal: as many as have their keys and values in so many eighths of the L2 cache, the longest tiles of all of them first, so that
    the short ones fill the gaps at the end (longest processing time first, as FlashAttention-3 does it). Else the heads of one group.
    """
    fitting = l2_bytes * eighths // 8 // (2 * kv_len * head_dim * item_bytes) if causal else 1
    return group * max(1, fitting)


def place(i: int, blocks: int, total: int, together: int, backwards: int) -> tuple[int, int]:
    """(head of all heads of all batch rows, block of queries) of tile i. Traced by Triton, too: nothing but `min` is called.

    Tiles come in sections of `together` heads, whose keys and values the L2 cache can hold. Within a section `backwards` puts the last
    blocks of all heads first, which see the most keys, so that the last ones to finish are the shortest.
    """
    first = i // (blocks * together) * together
    heads = min(total - first, together)
    within = i - first * blocks
    block = within // heads
    if backwards:
        block = blocks - 1 - block
    return first + within % heads, block
