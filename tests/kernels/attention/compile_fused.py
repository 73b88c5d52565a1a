"""Compile the Triton kernel for GPUs that are not there; prints a JSON line per configuration with what the binary tells.

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

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kerneldyno.kernels.attention._fused_triton import Tile, attention_kernel, offered

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ITEM_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
FEW = [((8, 0), 64, "fp16"), ((8, 0), 128, "bf16"), ((9, 0), 80, "fp16"), ((9, 0), 128, "bf16"), ((9, 0), 64, "fp32")]
# the tiles for sm_80 are those for sm_86, which has less shared memory; float32 ones are the same everywhere
ALL = [(capability, d, "bf16") for capability in ((8, 6), (9, 0)) for d in (64, 128, 256)] + [((8, 6), d, "fp32") for d in (64, 128, 256)]


def source(head_dim: int, dtype: str, cut: Tile) -> ASTSource:
    """Causal, padded, grouped: the variant with everything in it."""
    constants = {"G": 4, "D": head_dim, "CAUSAL": True, "PADDING": True, "BT": cut.bt, "BS": cut.bs}
    constants["BD"] = max(16, triton.next_power_of_2(head_dim))
    constants |= {f"s_{x}d": 1 for x in "qkvo"}
    signature, hints = {}, {}
    for place, name in enumerate(attention_kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name == "p_lengths":
            signature[name] = "*i32"
        elif name.startswith("p_"):
            signature[name] = f"*{dtype}"
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
        if name not in constants and name.startswith(("p_", "s_")):
            hints[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(attention_kernel, signature, constants, hints)


def dumped(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout


def facts(capability: tuple[int, int], head_dim: int, dtype: str, cut: Tile) -> dict[str, object]:
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    options = {"num_warps": cut.warps, "num_stages": cut.stages}
    binary = triton.compile(source(head_dim, dtype, cut), target=target, options=options)
    code = dumped(binary.asm["cubin"], "-sass")
    return {
        "capability": capability,
        "dtype": dtype,
        "label": f"sm_{target.arch} head_dim {head_dim} {dtype} {cut}",
        "shared_bytes": binary.metadata.shared,
        "tensor_core_instructions": len(re.findall(r"\bH(?:G)?MMA\b", code)),
        "wide_instructions": len(re.findall(r"\bHGMMA\b", code)),
        "spills": len(re.findall(r"\b(?:LDL|STL)", code)),
        "bt": cut.bt,
    }


if __name__ == "__main__":
    everything = sys.argv[1] == "all"
    wanted = []
    for capability, head_dim, dtype in ALL if everything else FEW:
        tiles = offered(head_dim, ITEM_BYTES[dtype], capability)
        wanted += [(capability, head_dim, dtype, cut) for cut in (dict.fromkeys(tiles) if everything else tiles[-1:])]
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(facts, *zip(*wanted, strict=True)):
            print(json.dumps(found), flush=True)
