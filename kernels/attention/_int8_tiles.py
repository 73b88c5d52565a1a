"""Steps, blocks and tiles of attention with 8-bit scores: arithmetic without torch or Triton.

What is offered compiles for the cards that it is meant for without spills: `kerneldyno codegen` shows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ._prefill_tiles import Tile

if TYPE_CHECKING:
    from ..registry import Device
    from .problem import Attention

STEPS = 127
"""Quantized values lie between -127 and 127."""

LEAST = 1e-15
"""What is smaller throughout, such as a single key less its mean, is quantized as if it were so large."""

BLOCK = 128
"""Keys that share a step where there is one for each block: as many as a tile holds at most, so that it multiplies whole rows of scores."""

PARTS = 16
"""Programs that sum up the keys of one head for their mean."""

HEAD_DIMS = range(16, 257)

HOPPER = {
    64: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 3, ahead=True)),
    128: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 3, ahead=True)),
    256: (Tile(64, 64, 4, 2), Tile(128, 64, 8, 2)),
}
"""16-bit tiles by head_dim for few and for many queries on sm_90."""

BLACKWELL = {
    64: (Tile(64, 64, 4, 3), Tile(128, 128, 8, 3)),
    128: (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
    256: (Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
}
"""The same on sm_100, for whose own tensor cores Triton has no 8-bit products: it takes those of sm_80, whose sums are in registers."""

AMPERE = {
    64: (Tile(64, 64, 8, 3), Tile(128, 64, 8, 3)),
    128: (Tile(64, 32, 8, 3), Tile(128, 32, 8, 3)),
    256: (Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
}
"""The same for all other cards: they fit 99 KB, which consumer cards have, too."""


def offered(head_dim: int, capability: tuple[int, int], *, window: bool = False) -> tuple[Tile, Tile]:
    """The tiles for few and for many queries; with a window there is one more loop over keys, and half as many keys fit the registers."""
    table = {9: HOPPER, 10: BLACKWELL}.get(capability[0], AMPERE)
    few, many = next(table[width] for width in sorted(table) if head_dim <= width)
    return few, replace(many, bs=min(many.bs, 64)) if window and head_dim > 64 else many


def tile(queries: int, sequences: int, head_dim: int, capability: tuple[int, int], multiprocessors: int, *, window: bool = False) -> Tile:
    """The tile for so many queries in each of `sequences` = batch · heads: the large one where it keeps every multiprocessor busy."""
    few, many = offered(head_dim, capability, window=window)
    return many if queries > few.bt and sequences * -(-queries // many.bt) >= multiprocessors else few


def by_pointers(cut: Tile, head_dim: int) -> Tile:
    """The tile for values that TMA does not take, in place of one that may have been meant for it: addresses take registers, too."""
    large = head_dim > 128
    return replace(cut, bt=min(cut.bt, 64) if large else cut.bt, bs=min(cut.bs, 32 if large else 64), warps=8, ahead=False)


def width(head_dim: int) -> int:
    """The power of two that holds a head, at least as wide as products of 8-bit numbers have to be."""
    return max(32, 1 << (head_dim - 1).bit_length())


def row_bytes(head_dim: int) -> int:
    """Bytes from one row of 8-bit numbers to the next: multiples of 16, which TMA takes."""
    return -(-head_dim // 16) * 16


def part(kv_len: int, keys: int) -> int:
    """Keys in each of PARTS parts: a multiple of the `keys` that are loaded together."""
    return -(-kv_len // (PARTS * keys)) * keys


def refusal_on_cuda(problem: Attention, device: Device) -> str | None:
    """Head sizes, dtypes, masks and cards that the Triton kernels are not written for, in a sentence."""
    if problem.head_dim not in HEAD_DIMS:
        return f"takes head_dim from {HEAD_DIMS.start} to {HEAD_DIMS.stop - 1} on cuda, not {problem.head_dim}"
    if problem.dtype == "float32":
        return "multiplies weights and values in 16 bit on cuda: it takes float16 and bfloat16 there, not float32"
    if problem.bias != "none":
        return "takes neither bias nor mask on cuda"
    if device.capability is not None and device.capability < (8, 0):
        return f"is written for compute capability 8.0 and newer, not {device.capability[0]}.{device.capability[1]}"
    return None
