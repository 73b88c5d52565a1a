"""Compile the decode kernels for GPUs that are not there; prints a JSON line per configuration with what the binary tells.

A script of its own: it must not run in Triton's interpreter. Arguments: "few" or "all".
"""

from __future__ import annotations

import sys
from typing import Any

import triton
from binaries import compiled, print_facts
from triton.compiler import ASTSource

from kerneldyno.kernels.attention._decode_splits import Tile, offered, shared_bytes
from kerneldyno.kernels.attention._decode_triton import split_kernel

Configuration = tuple[int, str, int, Tile, int, dict[str, Any]]

EVERYTHING = {"CAUSAL": True, "WINDOW": True, "SOFTCAP": True}
VARIANTS: list[tuple[int, dict[str, Any]]] = [(0, {}), (64, EVERYTHING), (16, EVERYTHING), (0, EVERYTHING | {"BIAS": 1, "PARTIAL": False})]
FEW: list[Configuration] = [
    (80, "fp16", 128, Tile(16, 32, 4, 3), 0, {}),
    (90, "bf16", 128, Tile(16, 64, 4, 3), 0, {"ONE_KERNEL": True}),
    (90, "bf16", 80, Tile(16, 64, 4, 3), 24, EVERYTHING),
    (90, "fp16", 128, Tile(64, 64, 4, 2), 64, EVERYTHING),
    (90, "fp32", 128, Tile(8, 16, 4, 3), 16, {}),
    (100, "bf16", 64, Tile(16, 64, 4, 4), 256, {"BIAS": 2}),
]


def source(dtype: str, head_dim: int, cut: Tile, page_size: int, changes: dict[str, Any]) -> ASTSource:
    """Grouped, in partial outputs; the launcher gives the same constants."""
    constants: dict[str, Any] = {
        "G": 4, "D": head_dim, "CAUSAL": False, "RAGGED": True, "WINDOW": False, "SOFTCAP": False, "BIAS": 0, "PAGE": page_size,
        "PARTIAL": True, "PRECISION": "ieee", "WHOLE": cut.hides_only_at_edges, "BS": 8, "BC": 32, "p_arrivals": None,
        "BM": cut.rows, "BN": cut.keys, "BD": max(16, triton.next_power_of_2(head_dim)),
    }  # fmt: skip
    constants |= {f"s_{x}d": 1 for x in "qkv"} | {"s_tc": 1, "s_xs": 1} | changes
    if constants.pop("ONE_KERNEL", False):
        del constants["p_arrivals"]
    if not constants["BIAS"]:
        constants["p_bias"] = None
    if not page_size:
        constants["p_table"] = None
    types = dict.fromkeys(("p_lse", "p_part", "p_lses"), "*fp32") | {
        "p_lengths": "*i32",
        "p_table": "*i32",
        "p_arrivals": "*i32",
        "scale": "fp32",
        "cap": "fp32",
    }
    if constants["BIAS"] == 2:
        types["p_bias"] = "*u8"
    signature, hints = {}, {}
    for place, name in enumerate(split_kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = types.get(name, f"*{dtype}" if name.startswith("p_") else "i32")
        if name.startswith(("p_", "s_")):
            hints[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(split_kernel, signature, constants, hints)


def facts(arch: int, dtype: str, head_dim: int, cut: Tile, page_size: int, changes: dict[str, Any]) -> dict[str, object]:
    return {
        "arch": arch,
        "dtype": dtype,
        "head_dim": head_dim,
        "tile": vars(cut),
        "page_size": page_size,
        "changes": changes,
        **compiled(source(dtype, head_dim, cut, page_size, changes), arch, cut.warps, cut.stages),
        "shared_estimate": shared_bytes(cut, head_dim, 4 if dtype == "fp32" else 2, divmod(arch, 10)),
    }


def everything() -> list[Configuration]:
    """All offered tiles, in variants that together hold all features. sm_86 takes those of sm_80, with less shared memory."""
    found: list[Configuration] = []
    for head_dim in (64, 128, 256):
        for page_size, changes in VARIANTS:
            for arch in (86, 90, 100) if changes else (90,):
                tiles = offered(head_dim, 2, divmod(arch, 10), biased="BIAS" in changes)
                found += [(arch, "bf16", head_dim, cut, page_size, changes) for cut in tiles]
            if page_size == 64:
                found += [(86, "fp32", head_dim, cut, page_size, changes) for cut in offered(head_dim, 4, (8, 6))]
    return found


if __name__ == "__main__":
    print_facts(facts, everything() if sys.argv[1] == "all" else FEW)
