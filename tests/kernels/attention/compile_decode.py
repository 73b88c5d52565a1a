"""Compile the decode kernels for GPUs that are not there; prints a JSON line per configuration with what the binary tells.

A script of its own: it must not run in Triton's interpreter. Arguments: "few" or "all".
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
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
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


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


def dumped(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout


def facts(arch: int, dtype: str, head_dim: int, cut: Tile, page_size: int, changes: dict[str, Any]) -> dict[str, object]:
    binary = triton.compile(
        source(dtype, head_dim, cut, page_size, changes),
        target=GPUTarget("cuda", arch, 32), options={"num_warps": cut.warps, "num_stages": cut.stages},
    )  # fmt: skip
    code, usage = dumped(binary.asm["cubin"], "-sass"), dumped(binary.asm["cubin"], "-res-usage")
    registers = re.search(r"REG:(\d+)", usage)
    return {
        "arch": arch,
        "dtype": dtype,
        "head_dim": head_dim,
        "tile": vars(cut),
        "page_size": page_size,
        "changes": changes,
        "label": f"sm_{arch} {dtype} head_dim {head_dim} {cut} page_size {page_size} {changes or ''}",
        "registers": int(registers.group(1)) if registers else -1,
        "spills": len(re.findall(r"\b(?:LDL|STL)", code)),
        "shared_bytes": binary.metadata.shared,
        "hmma": len(re.findall(r"\bHMMA\b", code)),
        "hgmma": len(re.findall(r"\bHGMMA\b", code)),
        "utcmma": len(re.findall(r"\bUTC\w*MMA\b", code)),
        "async_wide": len(re.findall(r"\bLDGSTS\S*\.128\b", code)),
        "async_narrow": len(re.findall(r"\bLDGSTS\b", code)) - len(re.findall(r"\bLDGSTS\S*\.128\b", code)),
        "load_wide": len(re.findall(r"\bLDG\.\S*128\b", code)),
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
    wanted = everything() if sys.argv[1] == "all" else FEW
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")) as pool:
        for told in pool.map(facts, *zip(*wanted, strict=True)):
            print(json.dumps(told), flush=True)
