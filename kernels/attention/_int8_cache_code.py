"""What the decode kernel over an 8-bit cache may be compiled to: its tiles, its constants, and every form that it may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion. The kernel that combines splits is that
of the 16-bit cache, which lists its forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._code import Configuration, signature
from ._decode_splits import Tile
from ._int8_tiles import row_bytes, width

SPLIT = "attention._int8_cache_triton:int8_split_kernel"
ARGUMENTS = "p_q p_k8 p_v8 p_k_steps p_v_steps p_o p_part p_lses p_lengths s_qb s_qh s_qt s_qd batch kv_heads T S splits window scale"

HOPPER = {
    64: (Tile(16, 128, 4, 4), Tile(32, 128, 4, 4)),
    128: (Tile(16, 64, 4, 4), Tile(32, 64, 4, 4)),
    256: (Tile(16, 32, 4, 4), Tile(32, 32, 8, 4)),
}
"""Tiles by head_dim for sm_90 and sm_100, by rising rows: some 50 KB of keys and values are on their way while others are computed."""

AMPERE = {
    64: (Tile(16, 64, 4, 4), Tile(32, 64, 4, 4)),
    128: (Tile(16, 64, 4, 3), Tile(32, 64, 4, 3)),
    256: (Tile(16, 32, 4, 3), Tile(32, 32, 8, 3)),
}
"""For all other cards: several programs share the 100 KB of a consumer card's multiprocessor."""


@dataclass(frozen=True)
class Asked:
    """What a problem, and the number of its splits, ask of the kernel."""

    causal: bool = False
    ragged: bool = False
    window: bool = False
    partial: bool = True
    """Whether several programs share a row, and another kernel combines what they found."""


VARIANTS = {
    "plain": Asked(),
    "not split": Asked(partial=False),
    "window, ragged": Asked(causal=True, ragged=True, window=True),
    "two-sided window": Asked(window=True),
}
"""Together they hold all features."""
HEAD_DIMS = (64, 128, 256, 32, 80)
"""Every width of a tile in every row of the tables, and a head that does not fill its tile."""
REPRESENTATIVE = (128, "window, ragged", 16)
"""Head, variant, rows."""


def offered(head_dim: int, capability: tuple[int, int]) -> tuple[Tile, ...]:
    """All tiles that `tile` may answer with, by rising rows."""
    table = HOPPER if capability[0] in (9, 10) else AMPERE
    return next(table[size] for size in sorted(table) if head_dim <= size)


def tile(rows: int, head_dim: int, capability: tuple[int, int]) -> Tile:
    """The tile for so many rows: query tokens times heads of a group. The smallest that holds them all, or the largest."""
    choice = offered(head_dim, capability)
    return next((cut for cut in choice if rows <= cut.rows), choice[-1])


def constants(asked: Asked, *, group: int, head_dim: int, cut: Tile, precision: str = "ieee") -> dict[str, Any]:
    """What the kernel is compiled for, beside warps and stages."""
    return {
        "G": group, "D": head_dim, "D8": row_bytes(head_dim), "CAUSAL": asked.causal, "RAGGED": asked.ragged, "WINDOW": asked.window,
        "PARTIAL": asked.partial, "PRECISION": precision, "BM": cut.rows, "BN": cut.keys, "BD": width(head_dim),
    }  # fmt: skip


def configuration(
    capability: tuple[int, int], head_dim: int, variant: str, asked: Asked, cut: Tile, *, representative: bool = False
) -> Configuration:
    """The kernel for groups of 4 heads; the cache is its own, so that rows begin on 16 bytes whatever the queries do."""
    fixed = constants(asked, group=4, head_dim=head_dim, cut=cut) | {"s_qd": 1}
    fixed |= {} if asked.ragged else {"p_lengths": None}
    fixed |= {} if asked.partial else {"p_part": None, "p_lses": None}
    types = dict.fromkeys(("p_k_steps", "p_v_steps", "p_part", "p_lses"), "*fp32")
    types |= dict.fromkeys(("p_k8", "p_v8"), "*i8") | {"p_lengths": "*i32"}
    found = signature(ARGUMENTS, fixed, "bfloat16", "scale", types)
    return Configuration(
        function=SPLIT,
        capability=capability,
        dtype="bfloat16",
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_"))),
        warps=cut.warps,
        stages=cut.stages,
        # warp groups take 64 rows
        instruction="HMMA",
        streams=True,
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card."""
    for head_dim in HEAD_DIMS:
        for name, asked in VARIANTS.items():
            for cut in offered(head_dim, capability):
                few = (head_dim, name, cut.rows) == REPRESENTATIVE
                yield configuration(capability, head_dim, name, asked, cut, representative=few)
