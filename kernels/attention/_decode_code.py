"""What the decode kernels may be compiled to: the constants that their launcher fixes, and every form that they may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._code import Configuration, signature
from ..contract import ITEM_BYTES
from ._decode_splits import MOST, Tile, for_odd_rows, offered

SPLIT = "attention._decode_triton:split_kernel"
SPLIT_ARGUMENTS = (
    "p_q p_k p_v p_o p_lse p_part p_lses p_lengths p_table p_bias p_arrivals s_qb s_qh s_qt s_qd s_kb s_kh s_ks s_kd "
    "s_vb s_vh s_vs s_vd s_tb s_tc s_xb s_xh s_xt s_xs batch kv_heads T S splits window scale cap"
)
COMBINE = "attention._decode_triton:combine_kernel"
COMBINE_ARGUMENTS = "p_part p_lses p_o p_lse N splits"


@dataclass(frozen=True)
class Asked:
    """What a problem, and the number of its splits, ask of the kernel."""

    causal: bool = False
    ragged: bool = False
    window: bool = False
    softcap: bool = False
    bias: int = 0
    """0 none, 1 added, 2 boolean."""
    page_size: int = 0
    """Keys in a page; 0: the cache lies in one piece."""
    partial: bool = True
    """Whether several programs share a row, and another kernel combines what they found."""
    precision: str = "ieee"
    """Of float32 products: ieee, tf32x3 or tf32."""


VARIANTS = {
    "plain": Asked(),
    "not split": Asked(partial=False),
    "window, ragged": Asked(causal=True, ragged=True, window=True, softcap=True),
    "pages of 64": Asked(causal=True, ragged=True, window=True, softcap=True, page_size=64),
    "pages of 16": Asked(causal=True, ragged=True, window=True, softcap=True, page_size=16),
    "mask": Asked(causal=True, bias=2),
    "everything": Asked(causal=True, ragged=True, window=True, softcap=True, bias=1, page_size=24, partial=False),
}
"""Together they hold all features."""
SOME = ("plain", "pages of 64", "everything")
"""Those of rarer heads, of float32, and of rows that begin anywhere."""
TF32 = {"plain, TF32": Asked(precision="tf32"), "bias, TF32": Asked(causal=True, bias=1, precision="tf32")}
"""Of float32 where torch allows it."""
HEAD_DIMS = {64: VARIANTS, 128: VARIANTS, 256: VARIANTS, 16: SOME, 32: SOME, 80: SOME}
"""Every width of a tile in every row of the tables, and a head that does not fill its tile."""
REPRESENTATIVE = {(64, "plain", 0), (128, "plain", 0), (80, "pages of 64", 0), (128, "pages of 64", 2)}
"""Head, variant, and which of the tiles, by rising rows."""
COMBINED = tuple(1 << i for i in range(1, MOST.bit_length()))
"""Splits, rounded up to a power of two."""


def width(head_dim: int) -> int:
    """The power of two that holds a head."""
    return max(16, 1 << (head_dim - 1).bit_length())


def combining(head_dim: int, splits: int) -> tuple[dict[str, int], int]:
    """(constants of the combine kernel, warps) for so many splits: a program loads all splits of a row at once, 4096 numbers at most."""
    held = 1 << (splits - 1).bit_length()
    items = max(16, min(width(head_dim), 4096 // held))
    return {"D": head_dim, "BS": held, "BC": items}, 4 if held * items >= 2048 else 1


def constants(asked: Asked, *, group: int, head_dim: int, cut: Tile, splits: int) -> dict[str, Any]:
    """What the split kernel is compiled for, beside warps and stages."""
    return {
        "G": group, "CAUSAL": asked.causal, "RAGGED": asked.ragged, "WINDOW": asked.window, "SOFTCAP": asked.softcap, "BIAS": asked.bias,
        "PAGE": asked.page_size, "PARTIAL": asked.partial, "PRECISION": asked.precision, "WHOLE": cut.hides_only_at_edges,
        "BM": cut.rows, "BN": cut.keys, "BD": width(head_dim), **combining(head_dim, splits)[0],
    }  # fmt: skip


def configuration(
    capability: tuple[int, int], head_dim: int, dtype: str, variant: str, asked: Asked, cut: Tile, *,
    aligned: bool = True, spills_allowed: int = 0, representative: bool = False,
) -> Configuration:  # fmt: skip
    """The split kernel for groups of 4 heads whose head_dim lies in one piece; `aligned`: rows begin on 16 bytes."""
    fixed = constants(asked, group=4, head_dim=head_dim, cut=cut, splits=8 if asked.partial else 1)
    fixed |= {f"s_{x}d": 1 for x in "qkv"} | {"s_tc": 1, "p_arrivals": None}  # two kernels: nobody counts arrivals
    fixed |= {"s_xs": 1} if asked.bias else {"p_bias": None, **{f"s_x{x}": 0 for x in "bhts"}}
    fixed |= {} if asked.page_size else {"p_table": None, "s_tb": 0}
    fixed |= {} if asked.ragged else {"p_lengths": None}
    fixed |= {} if asked.partial else {"p_part": None, "p_lses": None}
    types = dict.fromkeys(("p_lse", "p_part", "p_lses"), "*fp32") | dict.fromkeys(("p_lengths", "p_table"), "*i32")
    found = signature(SPLIT_ARGUMENTS, fixed, dtype, "scale cap", types | ({"p_bias": "*u8"} if asked.bias == 2 else {}))
    matrix = dtype != "float32" or asked.precision != "ieee"
    return Configuration(
        function=SPLIT,
        capability=capability,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_") if aligned else "p_")),
        warps=cut.warps,
        stages=cut.stages,
        tensor_cores=matrix,
        # warp groups take 64 rows
        instruction="HMMA" if cut.rows < 64 or dtype == "float32" else "",
        streams=True,
        spills_allowed=spills_allowed,
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card, of both kernels."""
    for head_dim, names in HEAD_DIMS.items():
        for name in names:
            yield from _splitting(capability, head_dim, "bfloat16", name, VARIANTS[name])
        for name, asked in ({name: VARIANTS[name] for name in SOME} | TF32).items():
            yield from _splitting(capability, head_dim, "float32", name, asked)
    for head_dim in (16, 32, 64, 128, 256):
        for dtype in ("bfloat16", "float32"):
            yield from (_combine(capability, head_dim, dtype, splits) for splits in COMBINED)


def _splitting(capability: tuple[int, int], head_dim: int, dtype: str, name: str, asked: Asked) -> Iterator[Configuration]:
    """Of one head and variant: all tiles, and rows that begin anywhere."""
    for i, cut in enumerate(offered(head_dim, ITEM_BYTES[dtype], capability, biased=asked.bias != 0)):
        allowed = spills_allowed(capability)
        few = dtype == "bfloat16" and (head_dim, name, i) in REPRESENTATIVE
        yield configuration(capability, head_dim, dtype, name, asked, cut, spills_allowed=allowed, representative=few)
        if name in SOME:
            loose = for_odd_rows(cut, head_dim) if dtype != "float32" else cut
            yield configuration(
                capability, head_dim, dtype, f"{name}, odd rows", asked, loose, aligned=False, spills_allowed=max(16, allowed)
            )


def spills_allowed(capability: tuple[int, int]) -> int:
    """Loads and stores of spilled registers that are let pass: see the notes, "Budgets"."""
    return 8 if capability[0] in (9, 10) else 16


def _combine(capability: tuple[int, int], head_dim: int, dtype: str, splits: int) -> Configuration:
    fixed, warps = combining(head_dim, splits)
    found = signature(COMBINE_ARGUMENTS, fixed, dtype, more=dict.fromkeys(("p_part", "p_lses", "p_lse"), "*fp32"))
    return Configuration(
        function=COMBINE,
        capability=capability,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant=f"{splits} splits",
        tile=f"{fixed['BS']}×{fixed['BC']} w{warps}",
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith("p_")),
        warps=warps,
        stages=3,  # what Triton takes where nobody says; it has no loop
        tensor_cores=False,
        representative=(head_dim, dtype, splits) == (128, "bfloat16", 16),
    )
