"""How the kernel for Hopper cuts its work: arithmetic without torch or Triton. What is offered compiles without spills."""

from __future__ import annotations

from dataclasses import dataclass

from .._tiles import require_powers_of_two, require_range
from . import _decode_splits

LOADING = 1
"""Warps that load; Triton fills them up to a warp group."""
SMALL_HELD, LARGE_HELD = 232, 240
"""Registers of a thread that multiplies, once the loading warp has given up its own."""


@dataclass(frozen=True)
class Tile:
    """Rows in warp groups of 64, keys in blocks, and how many of those are on their way."""

    groups: int
    """Warp groups that multiply, each 64 rows."""
    bs: int
    """Keys of a block."""
    stages: int
    """Blocks of keys in shared memory at once, and as many of values."""
    registers: int
    """Of every thread at the launch: as many as all of them together may have."""
    in_turn: bool = False
    """Two groups take turns in beginning their products, so that one computes exponentials while the other multiplies."""

    def __post_init__(self) -> None:
        require_range(1, 2, groups=self.groups)
        require_powers_of_two(16, 128, bs=self.bs)
        require_range(2, 8, stages=self.stages)
        require_range(24, 255, registers=self.registers)
        if self.in_turn and self.groups == 1:
            raise ValueError("in_turn is impossible with a single group: there is nobody to take turns with")

    def __str__(self) -> str:
        alone = ", 1 resident" if self.groups == self.resident == 1 else ""
        return f"{self.rows}×{self.bs} s{self.stages}{' in turn' if self.in_turn else ''}{alone}"

    @property
    def rows(self) -> int:
        return 64 * self.groups

    @property
    def held(self) -> int:
        """Registers of a thread that multiplies."""
        return LARGE_HELD if self.groups == 2 else SMALL_HELD

    @property
    def resident(self) -> int:
        """Programs that a multiprocessor has registers for."""
        return 65536 // (self.registers * 128 * (self.groups + 1))


PREFILL = {
    64: (Tile(1, 128, 3, 128), Tile(2, 128, 3, 168, in_turn=True)),
    128: (Tile(1, 64, 3, 128), Tile(2, 128, 2, 168, in_turn=True)),
    256: (Tile(1, 64, 2, 168), Tile(2, 64, 2, 168, in_turn=True)),
}
"""By head_dim, for few and for many rows. Products of 256 columns take more than the 128 registers of two programs side by side."""

DECODE = {64: Tile(1, 128, 3, 128), 128: Tile(1, 64, 3, 128), 256: Tile(1, 32, 4, 168)}
"""By head_dim: some 100 KB of keys and values on their way to each multiprocessor."""


def tile(head_dim: int, queries: int, heads: int, multiprocessors: int) -> Tile:
    """For so many queries of each of all heads: two groups, where there are then still tiles for all multiprocessors."""
    small, large = PREFILL[head_dim]
    return large if heads * -(-queries // large.rows) >= multiprocessors else small


def splits(cut: Tile, batch: int, kv_heads: int, rows: int, kv_len: int, multiprocessors: int) -> int:
    """Programs that share the keys of one block of rows, as `_decode_splits` has it; `resident` of them on a multiprocessor."""
    shape = _decode_splits.Tile(64, cut.bs, 4, cut.stages, aim=cut.resident)
    return _decode_splits.splits(batch, kv_heads, -(-rows // cut.rows), kv_len, shape, multiprocessors, cut.resident)
