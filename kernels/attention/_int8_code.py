"""What the kernels of attention with 8-bit scores may be compiled to: their constants, and every form that they may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._code import Configuration, signature
from ._int8_tiles import BLOCK, by_pointers, offered, row_bytes, width
from ._prefill_code import takes_tma
from ._prefill_tiles import Tile

PREFILL = "attention._int8_triton:int8_prefill_kernel"
PREFILL_ARGUMENTS = (
    "p_q p_k8 p_v p_o p_steps p_lengths t_k t_v t_o s_qb s_qh s_qt s_qd s_vb s_vh s_vs s_vd H T S TOTAL TOGETHER window scale"
)
SUMS = "attention._int8_triton:int8_sums_kernel"
SUMS_ARGUMENTS = "p_k p_sums p_lengths s_kb s_kh s_ks s_kd kv_heads S part"
KEYS = "attention._int8_triton:int8_keys_kernel"
KEYS_ARGUMENTS = "p_k p_k8 p_steps p_sums p_lengths s_kb s_kh s_ks s_kd kv_heads S"
SUMMED = 32
"""Keys that are loaded together for their sum."""


@dataclass(frozen=True)
class Asked:
    """What a problem asks of the kernel."""

    causal: bool = False
    lengths: int = 0
    """0 none, 1 of padded rows, 2 of ragged rows."""
    window: bool = False


VARIANTS = {
    "plain": Asked(),
    "causal": Asked(causal=True),
    "causal, padded": Asked(causal=True, lengths=1),
    "window, ragged": Asked(causal=True, lengths=2, window=True),
    "two-sided window": Asked(window=True),
}
"""Together they hold all features, alone and beside others."""
SOME = ("plain", "window, ragged")
"""Those of rarer heads, and of tensors that TMA does not take."""
HEAD_DIMS = {64: VARIANTS, 128: VARIANTS, 256: VARIANTS, 32: SOME, 96: SOME}
"""Every width of a tile in every row of the tables, and a head that does not fill its tile."""
REPRESENTATIVE = (128, "causal, padded")


def constants(asked: Asked, *, group: int, head_dim: int, cut: Tile, precision: str = "ieee") -> dict[str, Any]:
    """What the kernel is compiled for, beside warps and stages."""
    return {
        "G": group, "D": head_dim, "D8": row_bytes(head_dim), "CAUSAL": asked.causal, "LENGTHS": asked.lengths, "WINDOW": asked.window,
        "AHEAD": cut.ahead, "PRECISION": precision, "BT": cut.bt, "BS": cut.bs, "BD": width(head_dim),
    }  # fmt: skip


def quantizing(head_dim: int) -> dict[str, int]:
    """Constants of the kernel that quantizes keys."""
    return {"D": head_dim, "D8": row_bytes(head_dim), "BD": width(head_dim)}


def quantizing_warps(head_dim: int) -> int:
    """Of the kernels that read a block of keys at once."""
    return 4 if width(head_dim) <= 64 else 8


def configuration(
    capability: tuple[int, int], head_dim: int, variant: str, asked: Asked, cut: Tile, *,
    tma: bool, aligned: bool = True, representative: bool = False,
) -> Configuration:  # fmt: skip
    """The attention kernel for groups of 4 heads whose head_dim lies in one piece; `aligned`: rows begin on 16 bytes."""
    fixed = constants(asked, group=4, head_dim=head_dim, cut=cut) | {"s_qd": 1, "s_vd": 1}
    fixed |= {} if asked.lengths else {"p_lengths": None}
    fixed |= {} if tma else {f"t_{x}": None for x in "kvo"}
    types = {"p_k8": "*i8", "p_steps": "*fp32", "p_lengths": "*i32"}
    for x, rows, kind in (("k", cut.bs, "i8"), ("v", cut.bs, "bf16"), ("o", cut.bt, "bf16")):
        types[f"t_{x}"] = f"tensordesc<{kind}[1, 1, {rows}, {width(head_dim)}]>"
    found = signature(PREFILL_ARGUMENTS, fixed, "bfloat16", "scale", types)
    return Configuration(
        function=PREFILL,
        capability=capability,
        dtype="bfloat16",
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_") if aligned else "p_")),
        warps=cut.warps,
        stages=cut.stages,
        spills_allowed=spills_allowed(capability, cut, tma=tma),
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card: tiles for few and many queries, descriptors and pointers, rows that begin anywhere."""
    tma = takes_tma(capability, 2)
    for head_dim, names in HEAD_DIMS.items():
        for name in names:
            asked = VARIANTS[name]
            tiles = offered(head_dim, capability, window=asked.window)
            for cut in dict.fromkeys(tiles if tma else (by_pointers(cut, head_dim) for cut in tiles)):
                few = cut.bt == tiles[-1].bt and (head_dim, name) == REPRESENTATIVE
                yield configuration(capability, head_dim, name, asked, cut, tma=tma, representative=few)
            for plain in dict.fromkeys(by_pointers(cut, head_dim) for cut in tiles) if name in SOME else ():
                if tma:
                    yield configuration(capability, head_dim, f"{name}, by pointers", asked, plain, tma=False)
                yield configuration(capability, head_dim, f"{name}, odd rows", asked, plain, tma=False, aligned=False)
        yield from (_quantizing(capability, head_dim, function) for function in (SUMS, KEYS))


def spills_allowed(capability: tuple[int, int], cut: Tile, *, tma: bool) -> int:
    """Loads and stores of spilled registers that are let pass: see the notes, "Budgets"."""
    if tma and capability[0] == 9:
        return 40 if cut.ahead and cut.bs == BLOCK else 0
    return 24


def _quantizing(capability: tuple[int, int], head_dim: int, function: str) -> Configuration:
    """A kernel that makes 8-bit keys, for rows that have lengths."""
    fixed = {"D": head_dim, "BS": SUMMED, "BD": width(head_dim)} if function == SUMS else quantizing(head_dim)
    fixed |= {"s_kd": 1}
    types = dict.fromkeys(("p_sums", "p_steps"), "*fp32") | {"p_k8": "*i8", "p_lengths": "*i32"}
    found = signature(SUMS_ARGUMENTS if function == SUMS else KEYS_ARGUMENTS, fixed, "bfloat16", more=types)
    warps = quantizing_warps(head_dim)
    return Configuration(
        function=function,
        capability=capability,
        dtype="bfloat16",
        size=f"head_dim {head_dim}",
        variant="lengths",
        tile=f"{SUMMED if function == SUMS else BLOCK}×{width(head_dim)} w{warps}",
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_"))),
        warps=warps,
        stages=3,  # what Triton takes where nobody says
        tensor_cores=False,
        representative=head_dim == 128,
    )
