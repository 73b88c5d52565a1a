"""What a kernel's binary for a GPU that is not there tells: registers, spills, shared memory, instructions. For scripts beside it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
INSTRUCTIONS = {
    "spills": r"\b(?:LDL|STL)",
    "hmma": r"\bHMMA\b",
    "hgmma": r"\bHGMMA\b",
    "hgmma_waits": r"\bWARPGROUP\.DEPBAR\b",
    "utcmma": r"\bUTC\w*MMA\b",
    "tma_loads": r"\bUTMALDG\b",
    "async_loads": r"\bLDGSTS\b",
    "async_wide": r"\bLDGSTS\S*\.128\b",
}
"""What is counted in the machine code, by the pattern that finds it."""


def compiled(source: ASTSource, arch: int, warps: int, stages: int) -> dict[str, int]:
    """Registers of a thread, bytes of shared memory, and how often each of INSTRUCTIONS stands in the code for sm_{arch}."""
    options = {"num_warps": warps, "num_stages": stages}
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    code, usage = (_dumped(binary.asm["cubin"], option) for option in ("-sass", "-res-usage"))
    registers = re.search(r"REG:(\d+)", usage)
    assert registers
    counts = {name: len(re.findall(pattern, code)) for name, pattern in INSTRUCTIONS.items()}
    return {"registers": int(registers[1]), "shared_bytes": binary.metadata.shared, **counts}


def _dumped(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout


def print_facts(facts: Callable[..., dict[str, Any]], wanted: Iterable[tuple[Any, ...]]) -> None:
    """A JSON line for each configuration, compiled in processes of their own."""
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(facts, *zip(*wanted, strict=True)):
            print(json.dumps(found), flush=True)
