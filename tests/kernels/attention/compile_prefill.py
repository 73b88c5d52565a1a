"""Compile the prefill kernel for GPUs that are not there; prints a JSON line per configuration with what the binary tells.

A script of its own: it must not run in Triton's interpreter. Arguments: "few" or "all".
"""

from __future__ import annotations

import sys
from typing import Any

from binaries import compiled, print_facts
from triton.compiler import ASTSource

from kerneldyno.kernels.attention._prefill_tiles import Tile, offered, parts
from kerneldyno.kernels.attention._prefill_triton import prefill_kernel

ITEM_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal, padded": {"CAUSAL": True, "LENGTHS": 1},
    "window, softcap, ragged": {"CAUSAL": True, "LENGTHS": 2, "WINDOW": True, "SOFTCAP": True},
    "two-sided window": {"WINDOW": True},
    "mask": {"BIAS": 2, "CAUSAL": True},
    "bias": {"BIAS": 1},
    "everything": {"BIAS": 1, "CAUSAL": True, "LENGTHS": 2, "WINDOW": True, "SOFTCAP": True},
    "persistent": {"CAUSAL": True, "PERSISTENT": True},
}
FEW = [
    ((8, 6), 64, "fp16", "causal, padded"),
    ((8, 6), 128, "bf16", "plain"),
    ((9, 0), 64, "bf16", "plain"),
    ((9, 0), 80, "fp16", "window, softcap, ragged"),
    ((9, 0), 128, "bf16", "causal, padded"),
    ((9, 0), 192, "bf16", "plain"),
    ((10, 0), 128, "bf16", "causal, padded"),
    ((9, 0), 64, "fp32", "plain"),
]
# the table for sm_80 is that for sm_86, which has less shared memory; float32 tiles are the same everywhere
ALL = [
    (capability, head_dim, "bf16", variant)
    for capability in ((8, 6), (9, 0), (10, 0))
    for head_dim in (32, 64, 80, 96, 128, 192, 256)
    for variant in VARIANTS
] + [((8, 6), head_dim, "fp32", variant) for head_dim in (64, 80, 128, 256) for variant in ("plain", "everything")]


def source(head_dim: int, dtype: str, cut: Tile, *, tma: bool, variant: str) -> ASTSource:
    """The kernel with what this variant asks for; pointers and strides are multiples of 16 where they are used."""
    first, second = parts(head_dim)
    constants: dict[str, Any] = {"CAUSAL": False, "LENGTHS": 0, "WINDOW": False, "SOFTCAP": False, "BIAS": 0, "PERSISTENT": False}
    constants |= {"G": 4, "D": head_dim, "AHEAD": cut.ahead, "SPECIALIZED": False, "PRECISION": "ieee"}
    constants |= {"BT": cut.bt, "BS": cut.bs, "BD": first, "BD2": second, **{f"s_{x}d": 1 for x in "qkv"}, **VARIANTS[variant]}
    if not constants["BIAS"]:
        constants |= {"p_bias": None, **{f"s_x{x}": 0 for x in "bhts"}}
    else:
        constants |= {"s_xs": 1}  # a bias over the keys lies along them
    constants |= {"p_lengths": None} if not constants["LENGTHS"] else {}
    constants |= {f"t_{x}": None for x in "qkvo"} if not tma else {}
    constants |= {f"t_{x}2": None for x in "qkvo"} if not tma or not second else {}
    signature: dict[str, str] = {}
    hints = {}
    for place, name in enumerate(prefill_kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in ("p_lengths", "p_lse"):
            signature[name] = "*i32" if name == "p_lengths" else "*fp32"
        elif name == "p_bias":
            signature[name] = f"*{dtype}" if constants["BIAS"] == 1 else "*u8"
        elif name.startswith("t_"):
            rows, width = cut.bt if name[2] in "qo" else cut.bs, second if name.endswith("2") else first
            signature[name] = f"tensordesc<{dtype}[1, 1, {rows}, {width}]>"
        elif name.startswith("p_"):
            signature[name] = f"*{dtype}"
        else:
            signature[name] = "fp32" if name in ("scale", "cap") else "i32"
        if name not in constants and name.startswith(("p_", "s_")):
            hints[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(prefill_kernel, signature, constants, hints)


def facts(capability: tuple[int, int], head_dim: int, dtype: str, variant: str, cut: Tile) -> dict[str, object]:
    tma = capability[0] in (9, 10) and dtype != "fp32"
    arch = 10 * capability[0] + capability[1]
    return {
        "capability": capability,
        "head_dim": head_dim,
        "dtype": dtype,
        "variant": variant,
        "tile": f"{cut.bt}×{cut.bs} w{cut.warps} s{cut.stages}{' ahead' if cut.ahead else ''}",
        **compiled(source(head_dim, dtype, cut, tma=tma, variant=variant), arch, cut.warps, cut.stages),
    }


if __name__ == "__main__":
    everything = sys.argv[1] == "all"
    wanted = []
    for capability, head_dim, dtype, variant in ALL if everything else FEW:
        tiles = offered(head_dim, ITEM_BYTES[dtype], capability, biased="BIAS" in VARIANTS[variant])
        wanted += [(capability, head_dim, dtype, variant, cut) for cut in (dict.fromkeys(tiles) if everything else tiles[-1:])]
    print_facts(facts, wanted)
