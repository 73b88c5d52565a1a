"""What the backward kernels may be compiled to: the constants that their launcher fixes, and every form that they may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion. So are programs that share a group: they
store float32, and nothing else is otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .._code import TRITON_TYPES, Configuration, signature
from ..contract import ITEM_BYTES
from ._backward_tiles import Tile, by_pointers, for_odd_rows, offered
from ._prefill_code import Asked, takes_tma

STRIDES = "s_qb s_qh s_qt s_qd s_kb s_kh s_ks s_kd s_vb s_vh s_vs s_vd s_gb s_gh s_gt s_gd s_xb s_xh s_xt s_xs"
NUMBERS = "H T S ROOM TOTAL TOGETHER window scale cap factor"
KEYS = "attention._backward_triton:keys_kernel"
KEYS_ARGUMENTS = f"p_q p_k p_v p_g p_dq p_dk p_dv p_rows p_lengths p_bias t_q t_k t_v t_g t_dq {STRIDES} {NUMBERS}"
QUERIES = "attention._backward_triton:queries_kernel"
QUERIES_ARGUMENTS = f"p_q p_k p_v p_g p_dq p_rows p_lengths p_bias t_q t_k t_v t_g {STRIDES} {NUMBERS}"
DELTA = "attention._backward_triton:delta_kernel"
DELTA_ARGUMENTS = "p_o p_g p_lse p_rows s_gb s_gh s_gt s_gd H T ROOM"
DELTA_WARPS = 4

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
SOME = ("plain", "window, softcap, ragged")
"""Those of rarer heads, and of tensors that TMA does not take."""
TF32 = Asked(causal=True, lengths=1, precision="tf32")
HEAD_DIMS = {64: VARIANTS, 80: SOME, 128: VARIANTS, 256: VARIANTS, 16: SOME, 32: SOME, 192: SOME}
"""Every width of a tile in every row of the tables, and heads that do not fill theirs."""
REPRESENTATIVE = {(64, "causal, padded"), (128, "plain"), (128, "window, softcap, ragged"), (256, "plain")}


def width(head_dim: int) -> int:
    """The power of two that holds a head: accumulators of two parts would not leave registers for anything else."""
    return max(16, 1 << (head_dim - 1).bit_length())


def delta_constants(head_dim: int) -> dict[str, int]:
    """What the kernel for deltas is compiled for: 4096 numbers of output and gradient in a program, 32 of each in a thread."""
    return {"D": head_dim, "BT": 4096 // width(head_dim), "BD": width(head_dim)}


def constants(asked: Asked, *, group: int, head_dim: int, bt: int, bs: int) -> dict[str, Any]:
    """What both kernels are compiled for, beside warps and stages; `group`: query heads that a program of one key head goes through."""
    return {
        "G": group, "D": head_dim, "CAUSAL": asked.causal, "LENGTHS": asked.lengths, "WINDOW": asked.window, "SOFTCAP": asked.softcap,
        "BIAS": asked.bias, "PRECISION": asked.precision, "BT": bt, "BS": bs, "BD": width(head_dim),
    }  # fmt: skip


def keys_constants(asked: Asked, *, group: int, shares: int, head_dim: int, cut: Tile) -> dict[str, Any]:
    """What the kernel that holds keys is compiled for."""
    both = constants(asked, group=group // shares, head_dim=head_dim, bt=cut.bt, bs=cut.bs)
    return {**both, "SHARES": shares, "ONCE": not cut.twice}


def queries_constants(asked: Asked, *, group: int, head_dim: int, cut: Tile) -> dict[str, Any]:
    """What the kernel that holds queries is compiled for."""
    bt, bs = cut.turned
    return constants(asked, group=group, head_dim=head_dim, bt=bt, bs=bs)


def adds_by_tma(capability: tuple[int, int], head_dim: int, item_bytes: int) -> bool:
    """Whether gradients of queries, which lie in one piece, are added up by TMA: it spares the registers for their addresses."""
    return takes_tma(capability, item_bytes) and head_dim % 4 == 0


def configuration(
    capability: tuple[int, int], head_dim: int, dtype: str, variant: str, asked: Asked, cut: Tile, *, queries: bool = False,
    group: int = 1, tma: bool, aligned: bool = True, spills_allowed: int = 0, representative: bool = False,
) -> Configuration:  # fmt: skip
    """The kernel that holds keys, or the one that holds `queries`; `tma`: for what is given, `aligned`: rows begin on 16 bytes."""
    named: Mapping[str, Any]
    if queries:
        function, arguments, named = QUERIES, QUERIES_ARGUMENTS, queries_constants(asked, group=group, head_dim=head_dim, cut=cut)
    else:
        function, arguments = KEYS, KEYS_ARGUMENTS
        named = keys_constants(asked, group=group, shares=1, head_dim=head_dim, cut=cut)
    fixed = {**named, **{f"s_{x}d": 1 for x in "qkvg"}}
    fixed |= {"s_xs": 1} if asked.bias else {"p_bias": None, **{f"s_x{x}": 0 for x in "bhts"}}
    fixed |= {} if asked.lengths else {"p_lengths": None}
    fixed |= {} if tma else {f"t_{x}": None for x in "qkvg"}
    if not queries and (cut.twice or not adds_by_tma(capability, head_dim, ITEM_BYTES[dtype])):
        fixed |= {"t_dq": None}
    if not queries and cut.twice:
        fixed |= {"p_dq": None}
    types = (
        {"p_rows": "*fp32", "p_lengths": "*i32"} | ({"p_bias": "*u8"} if asked.bias == 2 else {}) | ({} if queries else {"p_dq": "*fp32"})
    )
    for x in "qkvg":
        rows = fixed["BT"] if x in "qg" else fixed["BS"]
        types[f"t_{x}"] = f"tensordesc<{TRITON_TYPES[dtype]}[1, 1, {rows}, {fixed['BD']}]>"
    types["t_dq"] = f"tensordesc<fp32[1, 1, {fixed['BT']}, {fixed['BD']}]>"
    found = signature(arguments, fixed, dtype, "scale cap factor", types)
    matrix, rows_of_products = dtype != "float32" or asked.precision != "ieee", fixed["BT" if queries else "BS"]
    return Configuration(
        function=function,
        capability=capability,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=str(cut if not queries else replace(cut, bt=fixed["BT"], bs=fixed["BS"])),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_") if aligned else "p_")),
        warps=cut.warps,
        stages=cut.stages,
        tensor_cores=matrix,
        # warp groups take 64 rows, which keys are here
        instruction="HMMA" if matrix and (dtype == "float32" or rows_of_products < 64) else "",
        spills_allowed=spills_allowed,
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card where nobody tuned, and some that tuning may choose: no offered tile works `twice`."""
    for head_dim, names in HEAD_DIMS.items():
        for dtype in ("bfloat16", "float32"):
            for name in names if dtype == "bfloat16" else SOME:
                yield from _forms(capability, head_dim, dtype, name, VARIANTS[name])
            yield _delta(capability, head_dim, dtype)
        yield from _forms(capability, head_dim, "float32", "causal, padded, TF32", TF32)


def _forms(capability: tuple[int, int], head_dim: int, dtype: str, name: str, asked: Asked) -> Iterator[Configuration]:
    """Of one head and variant: the tiles, groups of heads, and what becomes of them without TMA or where rows begin anywhere."""
    tma = takes_tma(capability, ITEM_BYTES[dtype])
    burdened = asked.softcap or asked.bias > 0
    tiles = tuple(dict.fromkeys(offered(head_dim, ITEM_BYTES[dtype], capability, burdened=burdened)))
    allowed = spills_allowed(capability, asked, head_dim)
    given = (capability, head_dim, dtype)
    for cut in tiles:
        few = dtype == "bfloat16" and cut is tiles[-1] and (head_dim, name) in REPRESENTATIVE
        yield configuration(*given, name, asked, cut, tma=tma, spills_allowed=allowed, representative=few)
        if name in SOME:
            if dtype == "bfloat16":
                yield configuration(*given, f"{name}, groups", asked, cut, group=4, tma=tma, spills_allowed=allowed)
            if dtype == "bfloat16" and cut is tiles[-1]:
                twice = replace(cut, twice=True)
                yield configuration(*given, name, asked, twice, queries=True, tma=tma, spills_allowed=allowed, representative=few)
            if tma:
                plainly = by_pointers(cut, head_dim)
                yield configuration(*given, f"{name}, by pointers", asked, plainly, tma=False, spills_allowed=allowed)
            loose = for_odd_rows(cut, head_dim) if dtype == "bfloat16" else cut
            yield configuration(*given, f"{name}, odd rows", asked, loose, tma=False, aligned=False, spills_allowed=allowed)


def _delta(capability: tuple[int, int], head_dim: int, dtype: str) -> Configuration:
    fixed = {**delta_constants(head_dim), "s_gd": 1}
    found = signature(DELTA_ARGUMENTS, fixed, dtype, more=dict.fromkeys(("p_lse", "p_rows"), "*fp32"))
    return Configuration(
        function=DELTA,
        capability=capability,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant="plain",
        tile=f"{fixed['BT']} w{DELTA_WARPS}",
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_"))),
        warps=DELTA_WARPS,
        stages=3,  # what Triton takes where nobody says; it has no loop
        tensor_cores=False,
        streams=True,
        representative=(head_dim, dtype) == (128, "bfloat16"),
    )


def spills_allowed(capability: tuple[int, int], asked: Asked, head_dim: int) -> int:
    """Loads and stores of spilled registers that are let pass.

    Both gradients of a tile of keys fill half of the registers at head_dim 128 and more, and what is spilled beside them are numbers that
    are the same in every round. On sm_100 slopes and biases meet scores that come from tensor memory.
    """
    burdened = asked.softcap or asked.bias > 0
    return 128 if burdened and capability[0] == 10 else 80 if head_dim > 64 else 48 if burdened else 16
