"""What the prefill kernel may be compiled to: the constants that its launcher fixes, and every form that it may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._code import TRITON_TYPES, Configuration, signature
from ..contract import ITEM_BYTES
from ._prefill_tiles import Tile, by_pointers, for_odd_rows, offered, parts

FUNCTION = "attention._prefill_triton:prefill_kernel"
ARGUMENTS = (
    "p_q p_k p_v p_o p_lse p_lengths p_bias t_q t_k t_v t_o t_q2 t_k2 t_v2 t_o2 s_qb s_qh s_qt s_qd s_kb s_kh s_ks s_kd "
    "s_vb s_vh s_vs s_vd s_xb s_xh s_xt s_xs H T S TOTAL TOGETHER window scale cap"
)
"""Those of the kernel that are not constants by themselves."""


@dataclass(frozen=True)
class Asked:
    """What a problem asks of the kernel."""

    causal: bool = False
    lengths: int = 0
    """0 none, 1 of padded rows, 2 of ragged rows."""
    window: bool = False
    softcap: bool = False
    bias: int = 0
    """0 none, 1 added, 2 boolean."""
    precision: str = "ieee"
    """Of float32 products: ieee, tf32x3 or tf32."""


VARIANTS = {
    "plain": Asked(),
    "causal, padded": Asked(causal=True, lengths=1),
    "window, softcap, ragged": Asked(causal=True, lengths=2, window=True, softcap=True),
    "two-sided window": Asked(window=True),
    "mask": Asked(causal=True, bias=2),
    "bias": Asked(bias=1),
    "everything": Asked(causal=True, lengths=2, window=True, softcap=True, bias=1),
}
"""Together they hold all features, alone and beside others."""
SOME = ("plain", "window, softcap, ragged", "bias")
"""Those of rarer heads, and of tensors that TMA does not take."""
TF32 = {
    "causal, padded, TF32": Asked(causal=True, lengths=1, precision="tf32"),
    "bias, TF32": Asked(bias=1, precision="tf32"),
}
"""Of float32 where torch allows it."""
HEAD_DIMS = {64: VARIANTS, 80: SOME, 128: VARIANTS, 192: VARIANTS, 256: VARIANTS, 16: SOME, 32: SOME, 96: SOME, 144: SOME, 160: SOME}
"""Every pair of parts of a head, in every row of the tables of tiles."""
REPRESENTATIVE = {(64, "plain"), (80, "window, softcap, ragged"), (128, "causal, padded"), (192, "plain"), (256, "bias")}


def constants(asked: Asked, *, group: int, head_dim: int, cut: Tile, persistent: bool = False, specialized: bool = False) -> dict[str, Any]:
    """What the kernel is compiled for, beside warps and stages."""
    first, second = parts(head_dim)
    return {
        "G": group, "D": head_dim, "CAUSAL": asked.causal, "LENGTHS": asked.lengths, "WINDOW": asked.window, "SOFTCAP": asked.softcap,
        "BIAS": asked.bias, "AHEAD": cut.ahead, "PERSISTENT": persistent, "SPECIALIZED": specialized, "PRECISION": asked.precision,
        "BT": cut.bt, "BS": cut.bs, "BD": first, "BD2": second,
    }  # fmt: skip


def takes_tma(capability: tuple[int, int], item_bytes: int) -> bool:
    """Whether tensors go by descriptors: on data centre cards from sm_90 on; it does not fill registers, where float32 products work."""
    return capability[0] in (9, 10) and item_bytes == 2


def configuration(
    capability: tuple[int, int], head_dim: int, dtype: str, variant: str, asked: Asked, cut: Tile, *,
    tma: bool, aligned: bool = True, spills_allowed: int = 0, representative: bool = False,
) -> Configuration:  # fmt: skip
    """The kernel for groups of 4 heads whose head_dim lies in one piece, with log-sum-exp; `aligned`: rows begin on 16 bytes."""
    fixed = constants(asked, group=4, head_dim=head_dim, cut=cut, persistent=cut.persistent > 0) | {f"s_{x}d": 1 for x in "qkv"}
    first, second = parts(head_dim)
    fixed |= {"s_xs": 1} if asked.bias else {"p_bias": None, **{f"s_x{x}": 0 for x in "bhts"}}
    fixed |= {} if asked.lengths else {"p_lengths": None}
    fixed |= {} if tma else {f"t_{x}": None for x in "qkvo"}
    fixed |= {} if tma and second else {f"t_{x}2": None for x in "qkvo"}
    types = {"p_lse": "*fp32", "p_lengths": "*i32"} | ({"p_bias": "*u8"} if asked.bias == 2 else {})
    for x, rows in (("q", cut.bt), ("k", cut.bs), ("v", cut.bs), ("o", cut.bt)):
        types |= {f"t_{x}": f"tensordesc<{TRITON_TYPES[dtype]}[1, 1, {rows}, {first}]>"}
        types |= {f"t_{x}2": f"tensordesc<{TRITON_TYPES[dtype]}[1, 1, {rows}, {second}]>"}
    found = signature(ARGUMENTS, fixed, dtype, "scale cap", types)
    matrix = dtype != "float32" or asked.precision != "ieee"
    return Configuration(
        function=FUNCTION,
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
        instruction="HMMA" if cut.bt < 64 else "",
        spills_allowed=spills_allowed,
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card: tiles for few and many queries, descriptors and pointers, rows that begin anywhere."""
    for head_dim, names in HEAD_DIMS.items():
        for dtype in ("bfloat16", "float32"):
            for name in names if dtype == "bfloat16" else SOME:
                yield from _forms(capability, head_dim, dtype, name, VARIANTS[name])
        for name, asked in TF32.items():
            yield from _forms(capability, head_dim, "float32", name, asked)


def _forms(capability: tuple[int, int], head_dim: int, dtype: str, name: str, asked: Asked) -> Iterator[Configuration]:
    """Of one head and variant: the tiles, and what becomes of them without TMA or where rows begin anywhere."""
    tma = takes_tma(capability, ITEM_BYTES[dtype])
    tiles = tuple(dict.fromkeys(offered(head_dim, ITEM_BYTES[dtype], capability, biased=asked.bias != 0)))
    given = (head_dim, dtype)
    for cut in tiles:
        few = dtype == "bfloat16" and cut is tiles[-1] and (head_dim, name) in REPRESENTATIVE
        allowed = spills_allowed(capability, asked, tma=tma)
        yield configuration(capability, *given, name, asked, cut, tma=tma, spills_allowed=allowed, representative=few)
        if name in SOME:
            allowed = spills_allowed(capability, asked, tma=False)
            if tma:
                plainly = by_pointers(cut, head_dim)
                yield configuration(capability, *given, f"{name}, by pointers", asked, plainly, tma=False, spills_allowed=allowed)
            loose = for_odd_rows(cut, head_dim, biased=asked.bias != 0) if dtype != "float32" else cut
            yield configuration(capability, *given, f"{name}, odd rows", asked, loose, tma=False, aligned=False, spills_allowed=allowed)


def spills_allowed(capability: tuple[int, int], asked: Asked, *, tma: bool = True) -> int:
    """Loads and stores of spilled registers that are let pass: see the notes, "Budgets"."""
    if asked.bias:
        return 144 if capability[0] not in (9, 10) else 64 if tma else 120
    return {9: 2, 10: 8}.get(capability[0], 48) if tma else 48
